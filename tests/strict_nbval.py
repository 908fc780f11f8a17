"""Makes nbval strict: a cell that writes to stderr, as warnings do, fails, also where its output is not compared."""

import pytest
from nbval.plugin import IPyNbCell, NbCellError


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    if isinstance(item, IPyNbCell):
        streams = [output for output in item.test_outputs or [] if output.output_type == "stream"]
        noise = "".join(output.text for output in streams if output.name == "stderr")
        if noise:
            raise NbCellError(item.cell_num, "Cell writes to stderr", item.cell.source, noise)
    return result
