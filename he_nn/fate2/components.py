"""The three components as FATE 2.2 finds them, through the entry points `fate.ext.component_desc`. What they do is in he_nn.guest and host.

FATE reads the annotations themselves, so this module must not defer them. The types are strict ones: otherwise FATE would turn 1.5 into 1
and "yes" into True before he_nn.params can refuse them.
"""

# mypy: disable-error-code="valid-type"

from fate.components.core import GUEST, HOST, Role, cpn
from pydantic import StrictBool, StrictInt, StrictStr

from he_nn.fate2 import binding
from he_nn.params import CLIENT_URL, SERVER_URL

MODEL_TYPE = "MLP, CNN, AlexNet, RNN, BERT, or any type registered at the model owner"
SERVER = "address of the HE-server API; '' for embedded mode (a host party runs the model)"
PRESET = "N11_L1, N12_L4 or N13_L8"
CUSTOM = "read custom_enc_param.json beside the DSL file instead"


def _own(kind):
    """A type of its own for each parameter: FATE writes a parameter's default and description into its type."""
    return type(kind.__name__, (kind,), {})


@cpn.component(roles=[GUEST, HOST], name="he-nn-load", provider="fate", description="Binds a network for encrypted inference.")
def he_nn_load(
    ctx,
    role: Role,
    model_type: cpn.parameter(type=_own(StrictStr), default="CNN", desc=MODEL_TYPE),
    server_url: cpn.parameter(type=_own(StrictStr), default=SERVER_URL, desc=SERVER),
    is_init: cpn.parameter(type=_own(StrictBool), default=True, desc="True: bind a new model; False: choose one already bound"),
    model_id: cpn.parameter(type=_own(StrictStr), default="", desc="the model to load (only with is_init=False)"),
    output_model: cpn.json_model_output(roles=[GUEST, HOST]),
):
    """Binds a network for encrypted inference."""
    values = {"model_type": model_type, "server_url": server_url, "is_init": is_init, "model_id": model_id}
    binding.load(ctx, role, values, output_model)


@cpn.component(roles=[GUEST, HOST], name="he-nn-eval", provider="fate", description="Evaluates a bound network, plain or encrypted.")
def he_nn_eval(
    ctx,
    role: Role,
    input_model: cpn.json_model_input(roles=[GUEST, HOST], optional=True),
    model_id: cpn.parameter(type=_own(StrictStr), default="latest", desc="model to evaluate: id, name or 'latest'"),
    model_type: cpn.parameter(type=_own(StrictStr), default="CNN", desc=MODEL_TYPE),
    server_url: cpn.parameter(type=_own(StrictStr), default=SERVER_URL, desc=SERVER),
    start_batch: cpn.parameter(type=_own(StrictInt), default=0, desc="first batch of the test set"),
    batch_size: cpn.parameter(type=_own(StrictInt), default=1, desc="rows, at most 512"),
    is_encryption: cpn.parameter(type=_own(StrictBool), default=False, desc="encrypt the test rows"),
    encryption_parameters: cpn.parameter(type=_own(StrictStr), default="N13_L8", desc=PRESET),
    is_custom_enc_param: cpn.parameter(type=_own(StrictBool), default=False, desc=CUSTOM),
    output_model: cpn.json_model_output(roles=[GUEST, HOST]),
):
    """Evaluates a bound network on its owner's test rows, plain or encrypted."""
    values = {
        "model_id": model_id,
        "model_type": model_type,
        "server_url": server_url,
        "start_batch": start_batch,
        "batch_size": batch_size,
        "is_encryption": is_encryption,
        "encryption_parameters": encryption_parameters,
        "is_custom_enc_param": is_custom_enc_param,
    }
    binding.evaluate(ctx, role, values, input_model, output_model)


@cpn.component(roles=[GUEST, HOST], name="he-nn-inference", provider="fate", description="Predicts the guest's rows, encrypted.")
def he_nn_inference(
    ctx,
    role: Role,
    input_data: cpn.dataframe_input(roles=[GUEST], optional=True),
    input_model: cpn.json_model_input(roles=[GUEST, HOST], optional=True),
    model_id: cpn.parameter(type=_own(StrictStr), default="latest", desc="model to use: id, name or 'latest'"),
    model_type: cpn.parameter(type=_own(StrictStr), default="CNN", desc=MODEL_TYPE),
    server_url: cpn.parameter(type=_own(StrictStr), default=SERVER_URL, desc=SERVER),
    num_inference: cpn.parameter(type=_own(StrictInt), default=1, desc="rows to infer from file_inference; a table is taken whole"),
    file_inference: cpn.parameter(type=_own(StrictStr), default="./inference_data.npy", desc=".npy file with the rows"),
    is_encryption: cpn.parameter(type=_own(StrictBool), default=False, desc="encrypt"),
    encryption_parameters: cpn.parameter(type=_own(StrictStr), default="N13_L8", desc=PRESET),
    is_custom_enc_param: cpn.parameter(type=_own(StrictBool), default=False, desc=CUSTOM),
    client: cpn.parameter(type=_own(StrictBool), default=False, desc="go through an HE-client service"),
    client_url: cpn.parameter(type=_own(StrictStr), default=CLIENT_URL, desc="its address"),
    output_data: cpn.dataframe_output(roles=[GUEST]),
    output_model: cpn.json_model_output(roles=[GUEST, HOST]),
):
    """Predicts the guest's rows with the host's network; encrypted, the host sees ciphertexts alone."""
    values = {
        "model_id": model_id,
        "model_type": model_type,
        "server_url": server_url,
        "num_inference": num_inference,
        "file_inference": file_inference,
        "is_encryption": is_encryption,
        "encryption_parameters": encryption_parameters,
        "is_custom_enc_param": is_custom_enc_param,
        "client": client,
        "client_url": client_url,
    }
    binding.infer(ctx, role, values, input_data, input_model, output_data, output_model)
