"""Who may call a service, and how both ends prove who they are: tokens, certificates, permissions. Knows neither HTTP nor gRPC."""
