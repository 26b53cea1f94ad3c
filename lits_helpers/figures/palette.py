"""The colors: each has one meaning in every picture. And the colors of a chart's lines."""

Color = tuple[int, int, int]  # (red, green, blue), 0..255

# A search chose the colors that lie farthest apart from each other and from the greys of soft
# tissue, seen normally and with each of the three color blindnesses. A test holds the distances.
PALETTE: dict[str, Color] = {
    "reference liver": (9, 118, 155),
    "reference tumor": (95, 203, 239),
    "predicted liver": (224, 129, 105),
    "predicted tumor": (241, 211, 82),
    "false positive": (231, 12, 15),
    "false negative": (143, 35, 228),
    "uncertain": (200, 255, 194),
}
# Lines and points of a chart, on white. Source: M. Okabe, K. Ito, "Color Universal Design", 2008.
ORANGE, SKY, GREEN = (230, 159, 0), (86, 180, 233), (0, 158, 115)
BLUE, VERMILION, PURPLE = (0, 114, 178), (213, 94, 0), (204, 121, 167)
OTHER_SOURCES = ((0, 158, 115), (204, 121, 167), (86, 130, 60), (240, 160, 220))


def layer_name(source: str, structure: str) -> str:
    """Return the name of a source's layer: "reference tumor", "predicted tumor", "nnU-Net tumor".

    Args:
        source: "reference", "prediction" or a name of the caller's.
        structure: "liver" or "tumor".
    """
    return f"{'predicted' if source == 'prediction' else source} {structure}"


def color_of(name: str) -> Color:
    """Return the color of a layer by its name; names not in PALETTE share four other colors."""
    if name in PALETTE:
        return PALETTE[name]
    if name in ("reference", "prediction"):  # a mask of either
        return PALETTE[layer_name(name, "liver")]
    # A tumor's color differs from that of the same source's liver.
    place = sum(name.encode()) + name.endswith("tumor")
    return OTHER_SOURCES[place % len(OTHER_SOURCES)]
