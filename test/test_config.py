# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration tree: what is right is read exactly, what is wrong is refused with a line that says what fits."""

from dataclasses import dataclass, fields

import numpy as np
import pytest
import yaml

from seg_perception.config import Config, ConfigError, load_config, merge, read_yaml
from seg_perception.files import shipped
from seg_perception.options import Selected, describe, option, parse, plugin, section, select, to_mapping
from seg_perception.plugins import GROUPS, PluginError, available, load_plugin, require
from seg_perception.scene import Instances

HERE = "test_config"


@dataclass(frozen=True)
class InnerConfig:
    """A section in a plugin's section."""

    radius: float = option(0.05, "how far", unit="m", ge=0.0, le=1.0)


class Blocks:
    """A segmenter of this test."""

    @dataclass(frozen=True)
    class Config:
        count: int = option(3, "how many", ge=1, le=9, live=True)
        names: tuple[str, ...] = option((), "what they are called")
        corner: tuple[float, float, float] = option((0.0, 0.0, 0.0), "where", unit="m")
        inner: InnerConfig = section(InnerConfig, "nested")

        def __post_init__(self):
            if self.count == 7:
                raise ValueError("count: 7 is reserved")

    class_names = ("block",)

    def __init__(self, config):
        self.config = config

    def segment(self, frame):
        return Instances.empty(frame.height, frame.width)


class Pads(Blocks):
    """Another segmenter, with other keys."""

    @dataclass(frozen=True)
    class Config:
        gap: float = option(0.01, "between", unit="m")


class Planner:
    """A grasp planner of this test."""

    @dataclass(frozen=True)
    class Config:
        depth: float = option(0.02, "how deep", unit="m", ge=0)

    def __init__(self, config):
        self.config = config


NotAPlugin = object()
BLOCKS = {"segmenter": {"plugin": f"{HERE}:Blocks"}}


def blocks(**keys):
    return {"segmenter": {"plugin": f"{HERE}:Blocks", **keys}}


# -- unknown keys ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ({"fussion": {}}, "unknown key 'fussion'; did you mean 'fusion'?"),
        ({"fusion": {"max_dept": 1.0}}, "unknown key 'fusion.max_dept'; did you mean 'max_depth'?"),
        ({"sync": {"slope": 0.1}}, "unknown key 'sync.slope'; did you mean 'slop'?"),
        (blocks(cout=4), "unknown key 'segmenter.cout'; did you mean 'count'?"),
        (blocks(inner={"radios": 1}), "unknown key 'segmenter.inner.radios'; did you mean 'radius'?"),
        ({"grasping": {"plannners": []}}, "unknown key 'grasping.plannners'; did you mean 'planners'?"),
        (
            {"grasping": {"planners": [f"{HERE}:Planner"], f"{HERE}:Planner": {"deph": 1}}},
            f"unknown key 'grasping.{HERE}:Planner.deph'; did you mean 'depth'?",
        ),
        ({"objects": {"zzz": 1}}, "unknown key 'objects.zzz'; known here: include_points"),
        ({3: 1}, "unknown key '3'; known here: segmenter"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(tree, line):
    with pytest.raises(ConfigError) as refused:
        load_config(tree)
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


# -- kinds and ranges --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ({"fusion": {"min_depth": -0.1}}, "fusion.min_depth: expected at least 0 m, got -0.1"),
        ({"sync": {"slop": 3}}, "sync.slop: expected 0 to 1 s, got 3"),
        ({"sync": {"slop": float("nan")}}, "sync.slop: expected 0 to 1 s, got nan"),
        ({"max_instances": 0}, "max_instances: expected 1 to 1000, got 0"),
        ({"max_instances": 2.5}, "max_instances: expected a whole number, got 2.5"),
        ({"max_instances": True}, "max_instances: expected a whole number, got True"),
        ({"max_instances": None}, "max_instances: expected a whole number, got None"),
        ({"fusion": {"min_depth": "near"}}, "fusion.min_depth: expected a number [m], got 'near'"),
        ({"fusion": {"min_depth": True}}, "fusion.min_depth: expected a number [m], got True"),
        ({"autostart": "yes"}, "autostart: expected true or false, got 'yes'"),
        ({"autostart": 1}, "autostart: expected true or false, got 1"),
        ({"target_frame": 7}, "target_frame: expected a text, got 7"),
        ({"run": "streem"}, "run: expected one of stream, on_request, got 'streem'"),
        ({"workspace": {"min": [0, 0]}}, "workspace.min: expected 3 values, got 2"),
        ({"workspace": {"min": "0 0 0"}}, "workspace.min: expected a list of 3 numbers, got '0 0 0'"),
        ({"workspace": {"min": [0, "a", 0]}}, "workspace.min[1]: expected a number [m], got 'a'"),
        ({"workspace": {"min": [1, 0, 0]}}, "workspace: expected min <= max"),
        ({"fusion": 3}, "fusion: expected a mapping of keys, got 3"),
        ({"fusion": [1]}, "fusion: expected a mapping of keys, got [1]"),
        ({"segmenter": {"count": 3}}, "segmenter: expected {plugin: NAME, ...} with one of ["),
        ({"segmenter": 5}, "segmenter: expected {plugin: NAME, ...} with one of ["),
        (blocks(count=12), "segmenter.count: expected 1 to 9, got 12"),
        (blocks(count=7), "segmenter: count: 7 is reserved"),
        (blocks(names=[1]), "segmenter.names[0]: expected a text, got 1"),
        (blocks(inner={"radius": 2}), "segmenter.inner.radius: expected 0 to 1 m, got 2"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(tree, line):
    with pytest.raises(ConfigError) as refused:
        load_config(tree)
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


def test_what_fits_is_taken():
    config = load_config(
        {
            **blocks(count=4, names=["a", "b"], corner=[1, 2.5, -3], inner={"radius": 1}),
            "fusion": {"max_depth": 3, "min_depth": "1e-3"},  # YAML 1.1 reads 1e-3 as text
            "sync": None,  # a section with nothing under it
            "workspace": {"min": [-1, -1, 0], "max": [1, 1, 1]},
        }
    )
    own = config.segmenter.config
    assert (own.count, own.names, own.corner, own.inner.radius) == (4, ("a", "b"), (1.0, 2.5, -3.0), 1.0)
    assert (config.fusion.min_depth, config.fusion.max_depth) == (0.001, 3.0)
    assert type(config.fusion.max_depth) is float
    assert config.sync == Config().sync
    assert config.workspace.is_set
    assert not Config().workspace.is_set
    segmenter = config.segmenter.create()
    assert isinstance(segmenter, Blocks)
    assert segmenter.config is own


def test_a_plugin_can_be_named_alone():
    assert load_config({"segmenter": f"{HERE}:Blocks"}).segmenter == load_config(BLOCKS).segmenter


# -- plugins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("tabeltop", "no plugin 'tabeltop' in segmenters (known: "),
        ("no_such_module:Blocks", "cannot be loaded: No module named 'no_such_module'"),
        (f"{HERE}:Nothing", "cannot be loaded: module 'test_config' has no attribute 'Nothing'"),
        (f"{HERE}:NotAPlugin", "has no Config"),
        (":", "cannot be loaded"),
        ("a b:c", "cannot be loaded"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named(name, line):
    with pytest.raises(ConfigError, match=r"^segmenter\.plugin: ") as refused:
        load_config({"segmenter": {"plugin": name}})
    assert line in str(refused.value)
    assert "tabletop" in str(refused.value)  # what exists
    assert "\n" not in str(refused.value)


def test_a_misspelt_plugin_gets_the_nearest_name():
    with pytest.raises(PluginError, match=r"did you mean 'tabletop'\?"):
        load_plugin("segmenters", "tabeltop")
    with pytest.raises(PluginError, match="no plugin group 'segmenter'"):
        available("segmenter")


def test_a_missing_runtime_gets_the_line_that_installs_it():
    with pytest.raises(PluginError, match=r"pip install 'seg_perception\[tensorrt\]'"):
        require("no_such_runtime", "tensorrt")


@pytest.mark.parametrize("group", GROUPS)
def test_every_shipped_plugin_loads_and_documents_its_options(group):
    assert available(group)
    for name in available(group):
        loaded = load_plugin(group, name)
        assert loaded.__doc__
        for o in describe(loaded.Config()):
            assert o.doc, o.name


def test_planners_have_their_sections_beside_the_list():
    name = f"{HERE}:Planner"
    grasping = load_config({"grasping": {"planners": [name], name: {"depth": 0.04}}}).grasping
    assert [p.create().config.depth for p in grasping.planners] == [0.04]
    assert load_config({"grasping": {"planners": []}}).grasping.planners == ()
    only_section = load_config({"grasping": {"antipodal": {}}}).grasping
    assert [p.plugin for p in only_section.planners] == ["antipodal"]  # the default list


def test_a_planner_of_a_module_in_a_package_can_be_set_by_its_dotted_name(tmp_path, monkeypatch):
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "planners.py").write_text(f"from {HERE} import Planner")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "some_package.planners:Planner"
    config = load_config({"grasping": {"planners": [name]}}, overrides={f"grasping.{name}.depth": 0.07})
    assert config.grasping.planners[0].config.depth == 0.07
    assert f"grasping.{name}.depth" in {o.name for o in describe(config)}


def test_the_section_of_a_planner_that_is_not_asked_is_checked_too():
    tree = {"grasping": {"planners": [], "top_down": {"grippr": "x"}}}
    with pytest.raises(ConfigError, match=r"unknown key 'grasping\.top_down\.grippr'"):
        load_config(tree)


# -- merging and overrides ---------------------------------------------------------------------------------------------


def test_later_sources_win_key_by_key():
    first = blocks(count=4, inner={"radius": 0.5})
    config = load_config(first, {"segmenter": {"count": 5}}, {"fusion": {"min_points": 9}})
    assert (config.segmenter.config.count, config.segmenter.config.inner.radius) == (5, 0.5)
    assert config.fusion.min_points == 9
    assert first["segmenter"]["count"] == 4  # sources are not written to


def test_another_plugin_takes_nothing_over_from_the_one_before():
    config = load_config(blocks(count=4), {"segmenter": {"plugin": f"{HERE}:Pads", "gap": 0.5}})
    assert config.segmenter.plugin == f"{HERE}:Pads"
    assert config.segmenter.config.gap == 0.5
    same = load_config(blocks(count=4), {"segmenter": {"plugin": f"{HERE}:Blocks"}})
    assert same.segmenter.config.count == 4  # the same plugin named again keeps its keys
    by_name = load_config(blocks(count=4), {"segmenter": f"{HERE}:Pads"})
    assert by_name.segmenter.plugin == f"{HERE}:Pads"
    assert merge({"a": {"plugin": "x", "k": 1}}, {"a": {"plugin": "y"}}) == {"a": {"plugin": "y"}}
    assert merge({"a": {"k": 1}}, {"a": 2}) == {"a": 2}


def test_options_of_a_plugin_need_its_name():
    with pytest.raises(ConfigError, match=r"segmenter: expected \{plugin: NAME, \.\.\.\} with one of .*tabletop"):
        load_config({"segmenter": {"score_threshold": 0.5}})


def test_a_refused_override_is_not_put_on_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("fusion: {min_depth: 0.4}")
    with pytest.raises(ConfigError) as refused:
        load_config(path, overrides=["fusion.max_dept=1"])
    assert str(refused.value).startswith("unknown key 'fusion.max_dept'")
    path.write_text("segmenter: {plugin: from_another_machine}")
    assert load_config(path, overrides=[f"segmenter.plugin={HERE}:Blocks"]).segmenter.plugin == f"{HERE}:Blocks"


def test_overrides():
    config = load_config(
        BLOCKS,
        overrides=[
            "fusion.min_depth=0.3",
            "segmenter.names=[a, 'b=c']",
            "run=on_request",
            "autostart=false",
            "target_frame=base_link",
            "gravity.direction=[0, 1, 0]",
        ],
    )
    assert config.fusion.min_depth == 0.3
    assert config.segmenter.config.names == ("a", "b=c")
    assert (config.run, config.autostart, config.target_frame) == ("on_request", False, "base_link")
    assert config.gravity.direction == (0.0, 1.0, 0.0)
    assert load_config(BLOCKS, overrides={"segmenter.count": 5}).segmenter.config.count == 5


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_an_overriding_plugin_and_its_options_may_come_in_any_order(order):
    pairs = [f"segmenter.plugin={HERE}:Blocks", "segmenter.count=8"][order]
    config = load_config({"segmenter": {"plugin": f"{HERE}:Pads", "gap": 0.2}}, overrides=pairs)
    assert config.segmenter.config.count == 8


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("fusion.min_depth", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("fusion.min_depth=[", "not valid YAML"),
        ("fusion.min_dept=1", "did you mean 'min_depth'?"),
        ("fusion.min_depth.more=1", "fusion.min_depth: expected a number [m]"),
        ("fusion=3", "fusion: expected a mapping of keys, got 3"),
    ],
)
def test_a_bad_override_is_refused(text, line):
    with pytest.raises(ConfigError) as refused:
        load_config(overrides=[text])
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


# -- files -------------------------------------------------------------------------------------------------------------


def test_yaml_and_ros_parameter_files_say_the_same(tmp_path):
    ours, nested, dotted = tmp_path / "ours.yaml", tmp_path / "nested.yaml", tmp_path / "dotted.yaml"
    ours.write_text("fusion: {min_depth: 0.4}\nsync:\n  slop: 0.1\n")
    nested.write_text("/**:\n  ros__parameters:\n    fusion: {min_depth: 0.4}\n    sync.slop: 0.1\n")
    dotted.write_text("/camera/seg_perception:\n  ros__parameters:\n    fusion.min_depth: 0.4\n    sync.slop: 0.1\n")
    for path in (ours, nested, dotted):
        config = load_config(path)
        assert (config.fusion.min_depth, config.sync.slop) == (0.4, 0.1)
    dotted.write_text(
        "/**: {ros__parameters: {use_sim_time: true, fusion.min_depth: 0.4}}\n"
    )  # every node has that one
    assert load_config(dotted).fusion.min_depth == 0.4
    empty = tmp_path / "empty.yaml"
    for text in ("", "# nothing\n", "/**:\n  ros__parameters:\n"):
        empty.write_text(text)
        assert to_mapping(load_config(empty)) == to_mapping(Config())


def test_a_ros_parameter_file_for_several_nodes(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text(
        "/**: {ros__parameters: {use_sim_time: true, fusion: {min_depth: 0.4}}}\n"
        "/arm/controller: {ros__parameters: {gain: 3}}\n"
        "/arm/seg_perception: {ros__parameters: {sync: {slop: 0.1}}}\n"
    )
    with pytest.raises(ConfigError, match=r"robot\.yaml.*several nodes"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("fusion: {min_depth: 0.4", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("- fusion", "expected a mapping of keys, got list"),
        ("fusion", "expected a mapping of keys, got str"),
        ("\tfusion: 1", "not valid YAML"),
        ("fusion: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("fusion: {min_dept: 1}", "unknown key 'fusion.min_dept'"),
        ("fusion: {min_depth: 1}\nfusion: {max_depth: 1}", "'fusion' stands there twice"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, line):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert line in str(refused.value)
    assert "mine.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere/mine\.yaml': no such file"):
        load_config(tmp_path / "nowhere/mine.yaml")
    with pytest.raises(ConfigError, match=r"'tabeltop': no such file, and no shipped one \(known: .*tabletop"):
        load_config("tabeltop")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    binary = tmp_path / "model.onnx"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match=r"model\.onnx': cannot be read"):
        load_config(binary)


def test_a_shipped_config_is_found_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_yaml("tabletop") == read_yaml("tabletop.yaml") == read_yaml(shipped("config", "tabletop.yaml"))
    (tmp_path / "tabletop").mkdir()  # a folder of that name is not meant
    assert read_yaml("tabletop") == read_yaml(shipped("config", "tabletop.yaml"))
    (tmp_path / "tabletop.yaml").write_text("max_instances: 7")
    assert load_config("tabletop.yaml").max_instances == 7  # one's own file comes first
    with pytest.raises(FileNotFoundError, match=r"no config/nothing\.yaml in "):
        shipped("config", "nothing.yaml")


@pytest.mark.parametrize("path", sorted(shipped("config").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_config_loads(path):
    assert isinstance(load_config(path), Config)


# -- listing -----------------------------------------------------------------------------------------------------------


def test_the_tree_survives_its_own_yaml():
    config = load_config(blocks(count=4, names=["a"]), {"grasping": {"planners": [f"{HERE}:Planner"]}})
    again = load_config(yaml.safe_load(yaml.safe_dump(to_mapping(config))))
    assert again == config


def test_every_leaf_is_described_once_with_its_value():
    config = load_config(blocks(count=4), {"fusion": {"min_depth": 0.33}})
    leaves = list(describe(config))
    by_name = {o.name: o for o in leaves}
    assert len(by_name) == len(leaves)
    assert (by_name["fusion.min_depth"].value, by_name["fusion.min_depth"].unit) == (0.33, "m")
    assert by_name["fusion.min_depth"].default == 0.15
    assert (by_name["segmenter.count"].value, by_name["segmenter.count"].ge, by_name["segmenter.count"].live) == (
        4,
        1,
        True,
    )
    assert by_name["segmenter.plugin"].value == f"{HERE}:Blocks"
    assert by_name["segmenter.inner.radius"].unit == "m"
    assert all(o.doc for o in leaves)
    rebuilt = load_config(overrides={o.name: list(o.value) if isinstance(o.value, tuple) else o.value for o in leaves})
    assert rebuilt == config  # what ROS parameters carry is the whole configuration


def test_sections_are_whole():
    """Every field of every section is declared through options.py, so that nothing is hidden from `describe`."""

    def check(config):
        for f in fields(config):
            assert "doc" in f.metadata, f"{type(config).__name__}.{f.name}"
            value = getattr(config, f.name)
            if isinstance(value, Selected):
                check(value.config)
            elif hasattr(value, "__dataclass_fields__"):
                check(value)

    check(Config())


def test_numbers_of_numpy_are_numbers():
    config = load_config({"fusion": {"min_depth": np.float64(0.2)}})
    assert config.fusion.min_depth == pytest.approx(0.2)


def test_a_section_of_one_s_own():
    @dataclass(frozen=True)
    class Mine:
        segmenter: Selected = plugin("segmenters", f"{HERE}:Blocks", "who")

    assert parse(Mine, {}).segmenter == select("segmenters", f"{HERE}:Blocks", "")
    assert parse(Mine, {"segmenter": {"plugin": f"{HERE}:Blocks", "count": 2}}).segmenter.config.count == 2
