from tests.e2e.test_rootless import platform, _image  # noqa
from tests.e2e.test_files import *  # noqa
from tests.e2e.test_docker_volumes import *  # noqa
from tests.e2e.test_names_and_ports import *  # noqa
from tests.e2e.test_networks import *  # noqa
from tests.e2e.test_docker_cli import test_pause_top_rename # noqa
