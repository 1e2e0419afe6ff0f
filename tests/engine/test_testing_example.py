"""The example in `todoku.engine.testing` is a test that passes."""

import re
from typing import Any

from todoku.engine import testing


def test_example_of_the_test_tools_passes() -> None:
    found = re.search(r"```python\n(.*?)```", testing.__doc__ or "", re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)
    names["test_account_is_opened"]()
