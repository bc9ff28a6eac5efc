"""Texts of tables of 50 images, 0.png to 49.png, for tests of tables of labels."""

NUM_IMAGES = 50
CLASSES = ("cat", "dog")


def rows(*cells, header, delimiter=","):
    """Returns the text of a CSV file: a row an image, with ``cells`` as functions of its number."""
    lines = [[f"{n}.png", *(cell(n) for cell in cells)] for n in range(NUM_IMAGES)]
    return "\n".join([header, *(delimiter.join(map(str, line)) for line in lines)]) + "\n"


def name_of(number):
    """Returns the class of an image."""
    return CLASSES[number % 2]


def several(number):
    """Returns the classes of an image that may have several."""
    return ("", "cat", "cat|dog", " owl | cat ", "dog|dog")[number % 5]


def sizes(splits):
    """Returns the number of images of train, minival and test."""
    return tuple(len(splits.images[split]) for split in ("train", "minival", "test"))


PLAIN = rows(name_of, header="path,label")
