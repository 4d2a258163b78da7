"""Which RDMA devices are chosen, in trees that stand for ``/sys``."""

from __future__ import annotations

import pytest
from checkpoint_engine.rdma_devices import (
    RDMAError,
    choose_devices,
    match_devices,
    present_devices,
    spread_devices,
)


def tree(folder, devices, gpus=None, states=None):
    """A tree with ``devices`` and ``gpus`` at their ways from the root of PCIe."""
    (folder / "bus/pci/devices").mkdir(parents=True)
    for name, way in devices.items():
        target = folder / "devices" / way
        target.mkdir(parents=True, exist_ok=True)
        for port in (1, 2) if name == "mlx5_two" else (1,):
            state = folder / "class/infiniband" / name / f"ports/{port}/state"
            state.parent.mkdir(parents=True)
            state.write_text((states or {}).get(name, "4: ACTIVE\n"))
        (folder / "class/infiniband" / name / "device").symlink_to(target)
    for bus_id, way in (gpus or {}).items():
        target = folder / "devices" / way
        target.mkdir(parents=True, exist_ok=True)
        (folder / "bus/pci/devices" / bus_id).symlink_to(target)
    return folder


def switches(count, per_switch=1):
    """``count`` PCIe switches with a GPU and ``per_switch`` network cards each."""
    devices, gpus = {}, {}
    for index in range(count):
        root = f"pci0000:{index:02x}/0000:{index:02x}:01.0"
        gpus[f"0000:{index:02x}:0a.0"] = f"{root}/0000:{index:02x}:0a.0"
        for card in range(per_switch):
            name = f"mlx5_{index * per_switch + card}"
            devices[name] = f"{root}/0000:{index:02x}:0b.{card}"
    return devices, gpus


def test_there_are_none(tmp_path):
    assert present_devices(tmp_path) == []
    with pytest.raises(RDMAError, match="there are none"):
        choose_devices(tmp_path, [], {}, [])


def test_present_devices_are_active_and_in_the_order_of_their_numbers(tmp_path):
    devices = {f"mlx5_{index}": f"pci0000:00/0000:00:{index:02x}.0" for index in range(12)}
    tree(tmp_path, devices, states={"mlx5_3": "1: DOWN\n"})
    assert present_devices(tmp_path) == [f"mlx5_{index}" for index in range(12) if index != 3]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["mlx5_0", "mlx5_1", "mlx5_10", "ib0"]),
        ("  ", ["mlx5_0", "mlx5_1", "mlx5_10", "ib0"]),
        ("mlx5", ["mlx5_0", "mlx5_1", "mlx5_10"]),
        ("mlx5_1", ["mlx5_1", "mlx5_10"]),
        ("=mlx5_1", ["mlx5_1"]),
        ("=mlx5_1, ib0", ["mlx5_1", "ib0"]),
        ("^mlx5_1", ["mlx5_0", "ib0"]),
        ("^=mlx5_1", ["mlx5_0", "mlx5_10", "ib0"]),
        ("^", ["mlx5_0", "mlx5_1", "mlx5_10", "ib0"]),
        ("=mlx5", []),
        ("mlx5_1:1", ["mlx5_1", "mlx5_10"]),
        ("=mlx5_1:2", []),
        ("=mlx5_10:2", ["mlx5_10"]),
        ("^=mlx5_10:2", ["mlx5_0", "mlx5_1", "mlx5_10", "ib0"]),
        ("^=mlx5_10:1,mlx5_10:2", ["mlx5_0", "mlx5_1", "ib0"]),
        ("nothing", []),
    ],
)
def test_patterns_of_nccl(pattern, expected):
    ports = {"mlx5_0": [1], "mlx5_1": [1], "mlx5_10": [1, 2], "ib0": [1]}
    assert match_devices(pattern, ports) == expected


def test_who_decides(tmp_path):
    devices, _ = switches(4)
    tree(tmp_path, devices)
    both = {"PS_P2P_STORE_RDMA_DEVICES": "mlx5_3, mlx5_1", "NCCL_IB_HCA": "mlx5_2"}
    assert choose_devices(tmp_path, ["mlx5_0", "mlx5_0"], both, []) == ["mlx5_0"]
    assert choose_devices(tmp_path, [], both, []) == ["mlx5_3", "mlx5_1"]
    assert choose_devices(tmp_path, [], {"NCCL_IB_HCA": "mlx5_2"}, []) == ["mlx5_2"]
    assert choose_devices(tmp_path, [], {}, []) == sorted(devices)
    with pytest.raises(RDMAError, match=r"'mlx5_9'.*there are: mlx5_0, mlx5_1"):
        choose_devices(tmp_path, ["mlx5_9"], {}, [])
    with pytest.raises(RDMAError, match="NCCL_IB_HCA=mlx4"):
        choose_devices(tmp_path, [], {"NCCL_IB_HCA": "mlx4"}, [])


def test_each_gpu_gets_its_neighbour(tmp_path):
    devices, gpus = switches(8)
    tree(tmp_path, devices, gpus)
    chosen = spread_devices(tmp_path, sorted(devices), sorted(gpus))
    assert chosen == {bus_id: [f"mlx5_{index}"] for index, bus_id in enumerate(sorted(gpus))}
    some = [sorted(gpus)[index] for index in (2, 5)]
    assert choose_devices(tmp_path, [], {"NCCL_IB_HCA": "=mlx5_2,mlx5_5"}, some) == [
        "mlx5_2",
        "mlx5_5",
    ]


def test_a_host_with_more_cards_than_gpus(tmp_path):
    devices, gpus = switches(2, per_switch=2)
    tree(tmp_path, devices, gpus)
    chosen = spread_devices(tmp_path, sorted(devices), sorted(gpus))
    assert list(chosen.values()) == [["mlx5_0", "mlx5_1"], ["mlx5_2", "mlx5_3"]]


def test_a_host_with_fewer_cards_than_gpus(tmp_path):
    gpus = {f"0000:00:{index:02x}.0": f"pci0000:00/0000:00:{index:02x}.0" for index in range(8)}
    devices = {name: f"pci0000:00/0000:00:1{index}.0" for index, name in enumerate(("a", "b"))}
    tree(tmp_path, devices, gpus)
    chosen = spread_devices(tmp_path, sorted(devices), sorted(gpus))
    used = [name for names in chosen.values() for name in names]
    assert sorted(used) == ["a"] * 4 + ["b"] * 4


def test_a_tree_that_tells_no_ways_is_spread_evenly(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "class/infiniband" / name).mkdir(parents=True)
    chosen = spread_devices(tmp_path, ["a", "b"], ["0000:01:00.0", "0000:02:00.0"])
    assert list(chosen.values()) == [["a"], ["b"]]


def test_bus_ids_as_cuda_writes_them(tmp_path):
    devices, gpus = switches(2)
    tree(tmp_path, devices, gpus)
    assert choose_devices(tmp_path, [], {}, ["00000000:01:0A.0"]) == ["mlx5_0", "mlx5_1"]
    chosen = spread_devices(tmp_path, sorted(devices), ["00000000:01:0A.0"])
    assert chosen == {"00000000:01:0A.0": ["mlx5_1", "mlx5_0"]}
    for wrong in ("", "1", "../../etc", "0000:01:0a.0/.."):
        with pytest.raises(RDMAError, match="bus id"):
            spread_devices(tmp_path, sorted(devices), [wrong])
