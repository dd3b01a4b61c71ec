"""A replica of the service: a process with the model and the HTTP interface, run by Ray Serve."""

from distlstm.stages.serving.settings import ServiceSettings


class ServiceReplica:
    """Loads the model, and builds the application that answers requests."""

    def __init__(self, settings: ServiceSettings) -> None:
        from distlstm.stages.serving.batcher import Batcher
        from distlstm.stages.serving.current_model import CurrentModel
        from distlstm.stages.serving.figures import Figures

        if settings.is_embedded:
            _keep_to_loopback()
        self.settings = settings
        self.figures = Figures()
        self.model = CurrentModel(settings, on_load=self.figures.loaded)
        self.batcher = Batcher(lambda: self.model.predictor, on_batch=self.figures.batch)

    def __serve_build_asgi_app__(self) -> object:
        """The application; Ray Serve calls this once the replica is made."""
        from distlstm.stages.serving.app import ServiceApp

        return ServiceApp(
            self.settings, model=self.model, batcher=self.batcher, figures=self.figures
        )


def _keep_to_loopback() -> None:
    """Let the replica's port for calls between deployments listen on loopback.

    Ray Serve opens it on all interfaces once this process has made its replica; nothing calls it.
    """
    from ray.serve._private import replica

    add_port = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: add_port(
        server, address.replace("[::]", "127.0.0.1")
    )
