# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A table, things dropped on it and a gripper, in MuJoCo. World: z up, origin on the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import matrix_from_quaternion, quaternion_from_matrix, transform
from seg_perception.grasping.gripper import Gripper
from seg_perception.plugins import require
from seg_perception.sim.picking.things import Piece, Thing

STEP = 0.001  # s
AWAY = 5.0  # m, where things wait that are not on the table
PARKED = np.array([0.0, 0.0, 2.5])  # m, the hand while it is not needed
REACH = 3.0  # m, of rays
RADIUS = 0.34  # m, what rests farther from the middle of the table has left the scene
PILE = 0.13  # m, things are dropped this near the middle
AT_REST = 0.004  # m/s and, for turns, 10 times that in rad/s
LONGEST = 4.0  # s until everything must rest
TABLE = "table"
ROLLING = 0.0015  # m, friction against rolling: without any a ball never rests
ARM = (1.5, 3e4, 400.0)  # hand: kg, N/m, N s/m; as stiff as a robot's arm
FINGER = (0.2, 2e4, 350.0)  # fingers: kg, N/m, N s/m: they close with about 0.1 m/s


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """Where a ray ends: `point` and outward `normal` (3,), which thing (-1 = the table), `distance` m."""

    point: NDArray[np.float64]
    normal: NDArray[np.float64]
    thing: int
    distance: float


class World:
    """The simulation of one scene: `things[i]` is the body `bodies[i]`; `rest` is the settled state trials begin in.

    The hand is moved by three slides along the world's axes, always with the tool centre point at their value.
    """

    def __init__(self, things: Sequence[Thing], gripper: Gripper, grip_force: float = 40.0) -> None:
        self.mujoco: Any = require("mujoco", "sim")
        self.things, self.gripper = tuple(things), gripper
        self.force = min(grip_force, gripper.max_force or grip_force)
        self.model = m = self.mujoco.MjModel.from_xml_string(_xml(things, gripper, self.force))
        self.data = self.mujoco.MjData(m)
        self.bodies = np.array([m.body(f"thing_{i}").id for i in range(len(things))], int)
        self.hand = m.body("hand").id
        self.fingers = np.array([m.geom("finger_low").id, m.geom("finger_high").id])
        self.palm = m.geom("palm").id
        self._joints = np.array([m.joint(f"thing_{i}").qposadr[0] for i in range(len(things))], int)
        self._speeds = np.array([m.joint(f"thing_{i}").dofadr[0] for i in range(len(things))], int)
        self.put_hand(PARKED, np.eye(3), 0.0)
        self.rest = self.state()

    # -- state -------------------------------------------------------------------------------------------------------

    def state(self) -> NDArray[np.float64]:
        """All that decides what comes next."""
        kind = self.mujoco.mjtState.mjSTATE_INTEGRATION
        out = np.empty(self.mujoco.mj_stateSize(self.model, kind))
        self.mujoco.mj_getState(self.model, self.data, out, kind)
        return out

    def reset(self) -> None:
        """Back to `rest`."""
        self.mujoco.mj_setState(self.model, self.data, self.rest, self.mujoco.mjtState.mjSTATE_INTEGRATION)
        self.mujoco.mj_forward(self.model, self.data)

    def put_hand(self, tcp: NDArray[np.float64], R_world_hand: NDArray[np.float64], opening: float) -> None:
        """The hand, at rest, at that tool centre point (3,) and rotation (3, 3), its jaws `opening` m apart."""
        x, y, z, w = quaternion_from_matrix(R_world_hand)
        self.model.body_quat[self.hand] = w, x, y, z
        slides, jaws = self.model.joint("hand_x").qposadr[0], self.model.joint("finger_low").qposadr[0]
        self.data.qpos[slides : slides + 3] = tcp
        self.data.qpos[jaws : jaws + 2] = opening / 2
        self.drive(tcp, opening)

    def drive(self, tcp: NDArray[np.float64], opening: float) -> None:
        """Where the hand is to go; it closes with its force when told an opening it cannot reach."""
        self.data.ctrl[:] = *tcp, opening / 2, opening / 2

    def step(self, seconds: float) -> None:
        self.mujoco.mj_step(self.model, self.data, max(1, round(seconds / STEP)))

    def pose(self, i: int) -> NDArray[np.float64]:
        """T_world_thing (4, 4) of thing i."""
        at = self._joints[i]
        w, x, y, z = self.data.qpos[at + 3 : at + 7]
        return transform(matrix_from_quaternion([x, y, z, w]), self.data.qpos[at : at + 3])

    def place(self, i: int, T_world_thing: NDArray[np.float64]) -> None:
        """Thing i, at rest, at that pose."""
        at, v = self._joints[i], self._speeds[i]
        x, y, z, w = quaternion_from_matrix(T_world_thing[:3, :3])
        self.data.qpos[at : at + 7] = *T_world_thing[:3, 3], w, x, y, z
        self.data.qvel[v : v + 6] = 0.0

    def thing_of(self, geoms: NDArray[np.int32]) -> NDArray[np.int64]:
        """Which thing each geom belongs to, -1 = none."""
        table = np.full(self.model.nbody + 1, -1)
        table[self.bodies] = np.arange(len(self.things))
        return table[np.where(geoms >= 0, self.model.geom_bodyid[geoms], self.model.nbody)]

    def meet(self, start: NDArray[np.float64], direction: NDArray[np.float64]) -> Spot | None:
        """What a ray from `start` along the unit `direction` meets first; None = nothing."""
        geom, distance, normal = np.full(1, -1, np.int32), np.empty(1), np.empty(3)
        cast = self.mujoco.mj_multiRay
        cast(self.model, self.data, start, direction, None, 1, -1, geom, distance, normal, 1, REACH)
        if geom[0] < 0:
            return None
        return Spot(start + distance[0] * direction, normal, int(self.thing_of(geom)[0]), float(distance[0]))

    def carries(self, i: int) -> float:
        """The largest share of another thing's weight that rests on thing i."""
        shares = np.zeros(len(self.things))
        force = np.empty(6)
        for k, contact in enumerate(self.data.contact[: self.data.ncon]):
            first, second = self.thing_of(contact.geom)
            if i not in (first, second) or min(first, second) < 0:
                continue
            self.mujoco.mj_contactForce(self.model, self.data, k, force)
            on_second = float(force[:3] @ contact.frame.reshape(3, 3)[:, 2])  # N, upwards
            other = first if second == i else second
            down = -on_second if second == i else on_second
            shares[other] += down / (self.mass(other) * 9.81)
        return float(shares.max())

    def com(self, i: int) -> NDArray[np.float64]:
        """Centre of mass (3,) m of thing i."""
        return self.data.xipos[self.bodies[i]].copy()

    def mass(self, i: int) -> float:
        """kg."""
        return float(self.model.body_mass[self.bodies[i]])

    # -- the scene ---------------------------------------------------------------------------------------------------

    def drop(self, rng: np.random.Generator, spread: float = PILE) -> NDArray[np.bool_]:
        """Drops the things one after another, waits until they rest, keeps that as `rest`; which of them stayed."""
        for i in range(len(self.things)):
            self._put_away(i)
        low = self._reach_below()
        for i in range(len(self.things)):
            R = _some_rotation(rng, self.things[i].stands)
            r, turn = spread * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
            below = self._top_near(i, r * np.cos(turn), r * np.sin(turn))
            self.place(i, transform(R, [r * np.cos(turn), r * np.sin(turn), below + low[i] + 0.01]))
            for k in range(i + 1, len(self.things)):
                self._put_away(k)
            self.step(0.35)
        self._settle()
        away = np.array([np.hypot(*self.pose(i)[:2, 3]) > RADIUS for i in range(len(self.things))], bool)
        self.data.qvel[:] = 0.0
        for i in np.flatnonzero(away):
            self._put_away(i, lying=True)
        self.mujoco.mj_forward(self.model, self.data)
        self.rest = self.state()
        return ~away

    def _settle(self) -> None:
        limit = np.tile([1.0, 1.0, 1.0, 10.0, 10.0, 10.0], len(self.things)) * AT_REST
        which = (self._speeds[:, None] + np.arange(6)).ravel()
        quiet, waited = 0, 0.0
        while quiet < 3 and waited < LONGEST:
            self.step(0.05)
            waited += 0.05
            quiet = quiet + 1 if (np.abs(self.data.qvel[which]) < limit).all() else 0

    def _put_away(self, i: int, lying: bool = False) -> None:
        height = self._reach_below()[i] if lying else AWAY
        self.place(i, transform(translation=[AWAY + i, 0.0, height]))

    def _reach_below(self) -> NDArray[np.float64]:
        """Radius m of each thing about its origin, roughly: its geoms' bounding spheres."""
        m = self.model
        reach = m.geom_rbound + np.linalg.norm(m.geom_pos, axis=1)
        return np.array([reach[m.geom_bodyid == b].max() for b in self.bodies])

    def _top_near(self, i: int, x: float, y: float) -> float:
        """Height m that thing i must clear to be set down around x, y."""
        self.mujoco.mj_forward(self.model, self.data)
        own = self._reach_below()[i]
        top = 0.0
        for k in range(i):
            at, reach = self.data.xipos[self.bodies[k]], self._reach_below()[k]
            if np.hypot(at[0] - x, at[1] - y) < own + reach:
                geoms = np.flatnonzero(self.model.geom_bodyid == self.bodies[k])
                top = max(top, float((self.data.geom_xpos[geoms, 2] + self.model.geom_rbound[geoms]).max()))
        return top


def _some_rotation(rng: np.random.Generator, stands: bool) -> NDArray[np.float64]:
    """Half of the things that need not stand come down anyhow."""
    if rng.uniform() < 0.5 or stands:
        turn = rng.uniform(0, 2 * np.pi)
        c, s = np.cos(turn), np.sin(turn)
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return matrix_from_quaternion(rng.standard_normal(4))


# -- MJCF --------------------------------------------------------------------------------------------------------------


def _xml(things: Sequence[Thing], gripper: Gripper, force: float) -> str:
    meshes = [
        f'<mesh name="hull_{i}_{k}" vertex="{_text(p.corners)}" inertia="convex"/>'
        for i, thing in enumerate(things)
        for k, p in enumerate(thing.pieces)
        if p.kind == "hull"
    ]
    return f"""<mujoco>
<compiler angle="radian" balanceinertia="true" boundmass="0.005" boundinertia="1e-6"/>
<option timestep="{STEP}" cone="elliptic" impratio="10" integrator="implicitfast"><flag multiccd="enable"/></option>
<default>
  <geom condim="4" friction="0.5 0.003 {ROLLING}" solref="0.006 1" solimp="0.95 0.99 0.0005"/>
  <default class="hand"><geom mass="0" condim="4" priority="1" friction="{gripper.friction} 0.004 0.0001"/></default>
</default>
<asset>{"".join(meshes)}</asset>
<worldbody>
<geom name="{TABLE}" type="plane" size="1 1 0.1" rgba="0.62 0.5 0.38 1"/>
{"".join(_thing(i, thing) for i, thing in enumerate(things))}
{_hand(gripper)}
</worldbody>
{_drives(gripper, force)}
</mujoco>"""


def _thing(i: int, thing: Thing) -> str:
    rolls = any(p.kind in ("sphere", "ellipsoid", "capsule", "cylinder", "hull") for p in thing.pieces)
    shared = (
        f'density="{thing.density:.6g}" friction="{thing.friction:.6g} 0.003 {ROLLING}" condim="{6 if rolls else 4}" '
        f'rgba="{_text(thing.color)} 1"'
    )
    geoms = "".join(_geom(f"hull_{i}_{k}", piece, shared) for k, piece in enumerate(thing.pieces))
    return f'<body name="thing_{i}" pos="{AWAY + i} 0 {AWAY}"><freejoint name="thing_{i}"/>{geoms}</body>\n'


def _geom(mesh: str, piece: Piece, shared: str) -> str:
    if piece.kind == "hull":
        return f'<geom type="mesh" mesh="{mesh}" {shared}/>'
    x, y, z, w = quaternion_from_matrix(piece.T_thing_piece[:3, :3])
    pose = f'pos="{_text(piece.T_thing_piece[:3, 3])}" quat="{_text((w, x, y, z))}"'
    return f'<geom type="{piece.kind}" size="{_text(piece.size)}" {pose} {shared}/>'


def _hand(g: Gripper) -> str:
    mass, finger_mass = ARM[0], FINGER[0]
    palm = np.array(g.palm_size) / 2
    behind = g.finger_length - g.tip_beyond_tcp
    half = np.array([g.finger_width, g.finger_thickness, g.finger_length]) / 2
    fingers = "".join(
        f'<body name="{name}"><joint name="{name}" type="slide" axis="0 {sign} 0" range="0 {g.stroke / 2}" '
        f'limited="true" damping="{FINGER[2]}"/>'
        f'<inertial pos="0 0 0" mass="{finger_mass}" diaginertia="1e-4 1e-4 1e-4"/>'
        f'<geom name="{name}" class="hand" type="box" size="{_text(half)}" '
        f'pos="0 {sign * half[1]} {g.tip_beyond_tcp - half[2]}"/></body>'
        for name, sign in (("finger_low", -1), ("finger_high", 1))
    )
    slides = "".join(f'<joint name="hand_{a}" type="slide" axis="{v}"/>' for a, v in _AXES)
    return (
        f'<body name="arm" gravcomp="1">{slides}<inertial pos="0 0 0" mass="{mass}" diaginertia="0.01 0.01 0.01"/>'
        f'<body name="hand" gravcomp="1"><inertial pos="0 0 0" mass="0.01" diaginertia="1e-4 1e-4 1e-4"/>'
        f'<geom name="palm" class="hand" type="box" size="{_text(palm)}" pos="0 0 {-behind - palm[2]}"/>{fingers}'
        f"</body></body>"
    )


def _drives(g: Gripper, force: float) -> str:
    _, stiffness, damping = ARM
    slides = "".join(f'<position joint="hand_{a}" kp="{stiffness}" kv="{damping}"/>' for a, _ in _AXES)
    jaws = "".join(
        f'<position joint="{name}" kp="{FINGER[1]}" forcerange="{-force} {force}"/>'
        for name in ("finger_low", "finger_high")
    )
    coupled = '<joint joint1="finger_low" joint2="finger_high" polycoef="0 1 0 0 0" solref="0.004 1"/>'
    return f"<equality>{coupled}</equality><actuator>{slides}{jaws}</actuator>"


_AXES = (("x", "1 0 0"), ("y", "0 1 0"), ("z", "0 0 1"))


def _text(values: Any) -> str:
    return " ".join(f"{float(v):.8g}" for v in np.asarray(values, np.float64).ravel())
