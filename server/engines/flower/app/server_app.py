"""The server side of the app: a run of a fleet file on the machine of the SuperLink."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.engines.flower.post import RuntimeGrid
from server.serving.serving import serve

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run config names (`pyproject.toml`)."""
    serve(RuntimeGrid(grid), context.run_config, context.run_id)
