"""Start a plan's processes, follow them, and say how they ended. Effects: processes, and code copies in the store."""

from tunemark.launch.code import CodeCopy as CodeCopy
from tunemark.launch.code import copy_code as copy_code
from tunemark.launch.ending import Ended as Ended
from tunemark.launch.follow import POLL_S as POLL_S
from tunemark.launch.follow import Following as Following
from tunemark.launch.follow import run_worker as run_worker
from tunemark.launch.host import host_facts as host_facts
from tunemark.launch.host import processor as processor
from tunemark.launch.interpreter import Interpreter as Interpreter
from tunemark.launch.interpreter import check_versions as check_versions
from tunemark.launch.interpreter import examine as examine
from tunemark.launch.local import Local as Local
