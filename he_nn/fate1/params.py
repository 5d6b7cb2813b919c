"""The components' parameters as FATE 1.x takes them: plain attributes, checked by he_nn.params when the job is submitted."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, ClassVar, Mapping

from federatedml.param.base_param import BaseParam

from ..params import CLIENT_URL, SERVER_URL, EvalParams, InferenceParams, LoadParams, Params


class HeNNParam(BaseParam):
    """What the three have in common: `checked` gives the frozen parameters, `check` raises ValueError naming every wrong field."""

    kind: ClassVar[type[Params]] = Params

    def checked(self) -> Any:
        """The checked parameters. Raises ParameterError (a ValueError) with field, what came and what is allowed."""
        return self.kind.of({field.name: getattr(self, field.name) for field in dataclasses.fields(self.kind)})

    def update(self, conf: Mapping[str, Any], allow_redundant: bool = False) -> Any:
        """These parameters with those of the job's conf; refuses unknown ones.

        A component whose model comes from another one is first given that one's parameters, as defaults. These would be unknown here
        (is_init), or would switch encryption on or off behind the conf's back: a he-nn component takes what its own part of the conf says,
        and the documented defaults, as on FATE 2.2.
        """
        return self if _is_of_another(conf) else super().update(conf, allow_redundant)

    def check(self) -> bool:
        """True; raises as `checked` does. A failing check shows in the answer to `flow job submit`."""
        self.checked()
        return True


def _is_of_another(conf: Mapping[str, Any]) -> bool:
    """Whether FATE Flow hands on the parameters of the component that the model comes from.

    Its call does not say so; its variables do (RuntimeConfParserUtil.get_component_parameters of FATE Flow 1.9 to 1.11).
    """
    caller = sys._getframe(2).f_locals
    given = caller.get("pre_parameters")
    return isinstance(given, dict) and given.get("ComponentParam") is conf and given.get("ComponentParameterSource") != caller.get("alias")


class HeNNLoadParam(HeNNParam):
    """
    Parameters of he-nn-load.

    Parameters
    ----------
    model_type : str, default 'CNN'
        MLP, CNN, AlexNet, RNN, BERT, or any type registered at the model owner
    server_url : str, default '127.0.0.1:12993'
        address of the HE-server API; '' for embedded mode (the host party holds the model)
    is_init : bool, default True
        True: bind a new model; False: choose one already bound
    model_id : str, default ''
        the model to load (only with is_init=False)
    """

    kind = LoadParams

    def __init__(self, model_type: str = "CNN", server_url: str = SERVER_URL, is_init: bool = True, model_id: str = "") -> None:
        super().__init__()
        self.model_type = model_type
        self.server_url = server_url
        self.is_init = is_init
        self.model_id = model_id


class HeNNEvalParam(HeNNParam):
    """
    Parameters of he-nn-eval.

    Parameters
    ----------
    model_id : str, default 'latest'
        model to evaluate: id, name or 'latest'
    model_type : str, default 'CNN'
        its type
    server_url : str, default '127.0.0.1:12993'
        address of the HE-server API; '' for embedded mode
    start_batch : int, default 0
        first batch of the test set
    batch_size : int, default 1
        rows, 1 to 512
    is_encryption : bool, default False
        encrypt the test rows
    encryption_parameters : str, default 'N13_L8'
        N11_L1, N12_L4 or N13_L8
    is_custom_enc_param : bool, default False
        read custom_enc_param.json instead
    """

    kind = EvalParams

    def __init__(
        self,
        model_id: str = "latest",
        model_type: str = "CNN",
        server_url: str = SERVER_URL,
        start_batch: int = 0,
        batch_size: int = 1,
        is_encryption: bool = False,
        encryption_parameters: str = "N13_L8",
        is_custom_enc_param: bool = False,
    ) -> None:
        super().__init__()
        self.model_id = model_id
        self.model_type = model_type
        self.server_url = server_url
        self.start_batch = start_batch
        self.batch_size = batch_size
        self.is_encryption = is_encryption
        self.encryption_parameters = encryption_parameters
        self.is_custom_enc_param = is_custom_enc_param


class HeNNInferenceParam(HeNNParam):
    """
    Parameters of he-nn-inference.

    Parameters
    ----------
    model_id : str, default 'latest'
        model to use: id, name or 'latest'
    model_type : str, default 'CNN'
        its type
    server_url : str, default '127.0.0.1:12993'
        address of the HE-server API; '' for embedded mode
    num_inference : int, default 1
        rows to infer from file_inference; an input table is taken whole
    file_inference : str, default './inference_data.npy'
        .npy file with the rows
    is_encryption : bool, default False
        encrypt
    encryption_parameters : str, default 'N13_L8'
        N11_L1, N12_L4 or N13_L8
    is_custom_enc_param : bool, default False
        read custom_enc_param.json instead
    client : bool, default False
        go through an HE-client service
    client_url : str, default '127.0.0.1:12995'
        its address
    """

    kind = InferenceParams

    def __init__(
        self,
        model_id: str = "latest",
        model_type: str = "CNN",
        server_url: str = SERVER_URL,
        num_inference: int = 1,
        file_inference: str = "./inference_data.npy",
        is_encryption: bool = False,
        encryption_parameters: str = "N13_L8",
        is_custom_enc_param: bool = False,
        client: bool = False,
        client_url: str = CLIENT_URL,
    ) -> None:
        super().__init__()
        self.model_id = model_id
        self.model_type = model_type
        self.server_url = server_url
        self.num_inference = num_inference
        self.file_inference = file_inference
        self.is_encryption = is_encryption
        self.encryption_parameters = encryption_parameters
        self.is_custom_enc_param = is_custom_enc_param
        self.client = client
        self.client_url = client_url
