"""Who lies in the scanner: sizes, the HU of every tissue in a contrast phase, and the scan's reach.

Everything is drawn far wider than patients are, so that no single look can be learnt by heart.
"""

from dataclasses import dataclass

import numpy as np

from ..body import Trunk

PHASES = ("none", "arterial", "portal", "late")
PHASE_SHARE = (0.17, 0.16, 0.48, 0.19)
TISSUES = {  # HU without contrast, arterial, portal venous, late
    "liver": (57, 68, 105, 92),
    "spleen": (49, 110, 120, 98),
    "cortex": (33, 165, 180, 140),
    "medulla": (31, 70, 155, 140),
    "urine": (6, 8, 20, 320),
    "aorta": (42, 280, 155, 115),
    "cava": (41, 75, 125, 112),
    "portal": (42, 105, 165, 118),
    "hepatic": (42, 62, 152, 116),
    "muscle": (54, 58, 64, 64),
    "bowel": (38, 75, 92, 82),
    "pancreas": (38, 98, 98, 80),
    "heart": (46, 110, 115, 95),
    "blood": (42, 240, 150, 115),  # in the heart
}
THICKNESS_MM = (0.5, 10.0)


@dataclass(frozen=True, kw_only=True)
class Patient(Trunk):
    """What makes one patient differ from the next; mm before `size` is applied, HU."""

    size: float  # 1 for an adult
    fluid: float  # [0, 1], ascites
    arms: bool
    phase: str
    tissue: dict  # HU by name

    @property
    def spine_y(self) -> float:
        """Middle of the vertebral bodies."""
        return self.half_back - 1.05 * self.fat - 66.0


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient: one in seven a child, some very thin or obese."""
    child = rng.random() < 0.14
    fat = float(np.clip(rng.gamma(1.8, 9.0) * (0.4 if child else 1.0) + 2.0, 2.0, 75.0))
    half_width = rng.uniform(120, 155) + fat
    depth = (half_width - fat) * rng.uniform(0.64, 0.9)
    phase = str(rng.choice(PHASES, p=PHASE_SHARE))
    return Patient(
        size=rng.uniform(0.4, 0.85) if child else rng.uniform(0.86, 1.15),
        half_width=half_width,
        half_front=depth * rng.uniform(0.85, 1.2) + fat * rng.uniform(0.3, 1.3),
        half_back=depth + 0.8 * fat,
        fat=fat,
        wall=rng.uniform(8, 18),
        visceral_fat=float(np.clip(fat / 45 + rng.normal(0, 0.3), 0.0, 1.2)),
        liver_height=rng.uniform(110, 205),
        fat_hu=rng.normal(-103, 7),
        fluid=rng.uniform(0.1, 1) if rng.random() < 0.16 else 0.0,
        arms=bool(rng.random() < 0.13),
        phase=phase,
        tissue=_draw_tissues(PHASES.index(phase), rng),
        noise_hu=_draw_noise(rng),
    )


def _draw_noise(rng: np.random.Generator) -> float:
    """Return the noise's deviation, HU: mostly 5 to 20, from none to 60."""
    kind = rng.choice(3, p=(0.07, 0.82, 0.11))
    return (0.0, float(np.exp(rng.normal(2.3, 0.45))), rng.uniform(20, 60))[kind]


def _draw_tissues(phase: int, rng: np.random.Generator) -> dict[str, float]:
    """Return HU by tissue; contrast varies as a whole, each tissue by itself, some wildly."""
    strength, wild = rng.uniform(0.65, 1.3), rng.random() < 0.3
    tissue = {}
    for name, values in TISSUES.items():
        hu = values[0] + strength * (values[phase] - values[0])
        hu += rng.normal(0, 4 + 0.07 * abs(hu)) + (rng.normal(0, 22) if wild else 0)
        tissue[name] = float(hu)
    change = rng.choice(3, p=(0.68, 0.24, 0.08))  # healthy, fat, iron
    if change:
        tissue["liver"] += -rng.uniform(10, 75) if change == 1 else rng.uniform(15, 50)
    tissue["liver"] = float(np.clip(tissue["liver"], -20, 150))
    if rng.random() < 0.25:  # veins may be as bright as the liver, or darker
        tissue["portal"] = tissue["liver"] + rng.normal(0, 22)
        tissue["hepatic"] = tissue["liver"] + rng.normal(0, 22)
    tissue["bile"] = rng.uniform(-5, 25)
    return tissue


def draw_scan(patient: Patient, shape, rng: np.random.Generator):
    """Return spacing_mm (z, y, x) and the scan's middle (z, y, x) mm, seen from the dome's top.

    Half of the scans hold the whole liver, others the whole trunk, or a part in thin slices.
    """
    kind, height = rng.choice(3, p=(0.55, 0.2, 0.25)), patient.liver_height
    if kind == 0:
        top, bottom = rng.uniform(5, 45), -height * rng.uniform(0.85, 1.3)
    elif kind == 1:
        top, bottom = rng.uniform(20, 165), rng.uniform(-440, -240)
    else:
        reach = np.exp(rng.uniform(np.log(0.5), np.log(6.0))) * shape[0] / 2 / patient.size
        middle = rng.uniform(-0.85, 0.02) * height
        top, bottom = middle + reach, middle - reach
    thickness = np.clip((top - bottom) * patient.size / shape[0], *THICKNESS_MM)
    view = 2 * max(patient.half_width, patient.half_front * 1.1) * rng.uniform(1.0, 1.3)
    if patient.arms:
        view *= rng.uniform(1.1, 1.45)
    if rng.random() < 0.1:  # a view that cuts the body
        view *= rng.uniform(0.62, 0.85)
    pixel = view * patient.size / max(shape[1:])
    middle = np.array(((top + bottom) / 2, rng.normal(6, 7), rng.normal(0, 8))) * patient.size
    return (round(float(thickness), 3), round(float(pixel), 4), round(float(pixel), 4)), middle


def draw_turn(rng: np.random.Generator) -> np.ndarray:
    """Return a small rotation (3, 3) of the patient in the scanner, sometimes a larger one."""
    spread = 0.12 if rng.random() < 0.15 else 0.035
    turn = np.eye(3)
    for axis, angle in enumerate(rng.normal(0, spread, 3) * (1.3, 0.8, 0.8)):
        a, b = [n for n in range(3) if n != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = np.sin(angle), -np.sin(angle)
        turn = step @ turn
    return turn
