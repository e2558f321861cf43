"""The arguments of a pipeline of diffusers, by what a table can give: fields of a request, inputs, further arguments.

They are read from the source of the installed diffusers, without importing it. Nothing here is a list of pipelines;
tables name arguments whose annotation says too little.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from typing import Any, Literal

from rendermill.models.inputs import InputKind, InputSpec
from rendermill.models.inspection import sources

_FIELDS = {
    **{name: name for name in ("prompt", "negative_prompt", "width", "height", "num_frames", "fps")},
    **{name: name for name in ("num_inference_steps", "guidance_scale", "guidance_scale_2")},
    "neg_prompt": "negative_prompt",
    "frames": "num_frames",
    "video_length": "num_frames",
    "frame_rate": "fps",
}
"""The field of a request that each of these arguments is."""
_MANAGED = ("generator", "output_type", "return_dict", "batch_size", "seed", "callback_steps", "callback")
"""Arguments that rendermill sets itself, or that have no effect on pixels."""
_MANAGED_PREFIXES = (
    "num_images_per_",
    "num_videos_per_",
    "num_waveforms_per_",
    "callback_on_",
    "prior_callback_on_",
    "_",
)
_PICTURE = ("PipelineImageInput", "PIL.Image.Image", "Image.Image")
_PICTURES = ("last_image",)
"""Inputs that are pictures, though they are annotated as tensors."""
_FREE_SIZE = ("face_video", "reference_images", "image_reference", "original_image", "ref_image")
"""Inputs that need not have the size of the output."""
_NEEDS_IMAGE = ("Img2Img", "ImageToVideo", "Image2Video", "Inpaint", "Edit", "I2V", "I2I")
"""Parts of the names of pipelines that render nothing without their `image`, even if it has the default None."""
_SEVERAL = {("QwenImageEditPlusPipeline", "image"), ("JoyImageEditPlusPipeline", "images")}
"""Inputs that are lists of pictures, though their annotation names a single one, too."""
_SIMPLE = {"int": int, "float": float, "bool": bool, "str": str}


@dataclass(frozen=True)
class Signature:
    """The arguments and the output of a pipeline's `__call__`.

    Attributes:
        fields: the argument for each field of a request that it takes, such as `frame_rate` for `fps`.
        inputs: the images and videos that it takes, by name.
        further: its further arguments that a table can give, with their types as pydantic takes them.
        defaults: the default of each argument, if it is a literal.
        refused: arguments that a table cannot give, with the reason.
        needed: those of `refused` without which it renders nothing.
        outputs: the fields of its output; empty if they are not known.
        components: the names of the components that a checkpoint must have.
    """

    class_name: str
    fields: Mapping[str, str]
    inputs: Mapping[str, InputSpec]
    further: Mapping[str, Any]
    defaults: Mapping[str, Any]
    refused: Mapping[str, str]
    needed: tuple[str, ...]
    outputs: frozenset[str]
    components: tuple[str, ...]

    @property
    def kind(self) -> Literal["image", "video"] | None:
        """The kind of media that it renders; None if neither images nor videos."""
        if self.outputs & {"frames", "video", "videos"}:
            return "video"
        return "image" if not self.outputs or self.outputs & {"images", "image"} else None


@cache
def signature(class_name: str) -> Signature | None:
    """Return what a pipeline of the installed diffusers takes; None if it has no pipeline of this name."""
    call = sources.method(class_name, "__call__")
    if call is None:
        return None
    fields: dict[str, str] = {}
    inputs: dict[str, InputSpec] = {}
    further, defaults, refused, needed = {}, {}, {}, []
    for name, annotation, default in _arguments(call):
        found, value = _literal(class_name, default)
        if found:
            defaults[name] = value
        if name in _FIELDS:
            fields[_FIELDS[name]] = name
        elif name in _MANAGED or name.startswith(_MANAGED_PREFIXES):
            continue
        elif (spec := _input(class_name, name, annotation, default)) is not None:
            inputs[name] = spec
        elif (type_ := _type(annotation, value)) is not None:
            further[name] = type_
        else:
            refused[name] = _reason(name, annotation)
            if default is None:
                needed.append(name)
    outputs = frozenset(_outputs(call))
    components = tuple(_components(class_name))
    return Signature(class_name, fields, inputs, further, defaults, refused, tuple(needed), outputs, components)


def _arguments(function: ast.FunctionDef) -> Iterator[tuple[str, str, ast.expr | None]]:
    """Yield the name, the annotation as text, and the default of each argument but `self`; None: it has no default."""
    arguments, own = function.args.args, function.args.defaults
    defaults: list[ast.expr | None] = [*[None] * (len(arguments) - len(own)), *own]
    pairs = [*list(zip(arguments, defaults, strict=True))[1:]]
    pairs += zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    for argument, default in pairs:
        yield argument.arg, _text(argument.annotation), default


def _text(annotation: ast.expr | None) -> str:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    return "" if annotation is None else ast.unparse(annotation)


def _literal(class_name: str, default: ast.expr | None) -> tuple[bool, Any]:
    """Return whether a default is a literal, or a constant of its module, and its value."""
    if isinstance(default, ast.Name):
        default = sources.constant(class_name, default.id)
    try:
        return (False, None) if default is None else (True, ast.literal_eval(default))
    except ValueError:
        return False, None


def _input(class_name: str, name: str, annotation: str, default: ast.expr | None) -> InputSpec | None:
    """Return what an argument takes if it is made of pictures; None if it is not."""
    is_adapter = name.startswith(("ip_adapter", "negative_ip_adapter")) or name == "masked_image_latents"
    if is_adapter or not (name in _PICTURES or any(picture in annotation for picture in _PICTURE)):
        return None
    is_optional = default is not None and ("None" in annotation or "Optional" in annotation)
    if name in ("image", "images") and any(part in class_name for part in _NEEDS_IMAGE):
        is_optional = False
    kind = _input_kind(class_name, name, annotation)
    is_reference = is_optional and name in ("image", "images")
    is_free = kind == "images" or is_reference or name in _FREE_SIZE or "Edit" in class_name or "Kontext" in class_name
    return InputSpec(kind, is_required=not is_optional, has_size_of_output=not is_free)


def _input_kind(class_name: str, name: str, annotation: str) -> InputKind:
    is_list = annotation.lower().startswith(("list[", "optional[list["))
    is_mask = "mask" in name
    if "video" in name or name == "conditioning_frames" or (is_list and is_mask):
        return "mask video" if is_mask else "video"
    if is_mask:
        return "mask"
    takes_several = is_list or name in ("images", "input_images", "reference_images", "controls")
    is_list_too = name == "image" and "list[PIL.Image.Image]" in annotation and "Tensor" not in annotation
    return "images" if takes_several or is_list_too or (class_name, name) in _SEVERAL else "image"


def _type(annotation: str, default: Any) -> Any:
    """Return the type of an argument as pydantic takes it; None if a table cannot give it."""
    if any(word in annotation for word in ("Tensor", "ndarray", "Callable", "dict", "Dict")):
        return None
    try:
        tree = ast.parse(annotation or type(default).__name__, mode="eval").body
    except SyntaxError:
        return None
    known = [type_ for part in _members(tree) if (type_ := _member_type(part)) is not None]
    # diffusers takes a list with a value for each item of a batch wherever it takes a single value, too
    types = [type_ for type_ in known if not any(type_ == list.__class_getitem__(other) for other in known)]
    return reduce(or_, types) if types else None


def _members(tree: ast.expr) -> Iterator[ast.expr]:
    """Yield the members of a union, however it is written."""
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr):
        yield from _members(tree.left)
        yield from _members(tree.right)
    elif isinstance(tree, ast.Subscript) and ast.unparse(tree.value) in ("Optional", "Union"):
        for part in tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]:
            yield from _members(part)
    else:
        yield tree


def _member_type(tree: ast.expr) -> Any:
    if isinstance(tree, ast.Name):
        return _SIMPLE.get(tree.id)
    if not isinstance(tree, ast.Subscript):
        return None
    outer = ast.unparse(tree.value).lower()
    parts = tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]
    if outer == "literal":
        return Literal[tuple(ast.literal_eval(part) for part in parts)]
    inner = [_member_type(part) for part in parts if ast.unparse(part) != "..."]
    if not inner or None in inner:
        return None
    if outer in ("list", "iterable", "sequence"):
        return list.__class_getitem__(inner[0])
    if outer == "tuple":
        return tuple.__class_getitem__((inner[0], ...) if len(inner) == 1 else tuple(inner))
    return None


def _reason(name: str, annotation: str) -> str:
    if name.startswith(("ip_adapter", "negative_ip_adapter")):
        return "it needs an IP-Adapter, which is not loaded"
    if "Tensor" in annotation or "ndarray" in annotation or name.endswith(("embeds", "latents")):
        return "it takes tensors, which a table cannot give"
    return f"it takes {annotation or 'objects'}, which a table cannot give"


def _outputs(call: ast.FunctionDef) -> Iterator[str]:
    """Yield the fields of the output object that `__call__` returns."""
    for node in ast.walk(call):
        made = node.value if isinstance(node, ast.Return) else None
        if isinstance(made, ast.Call) and ast.unparse(made.func).endswith("Output"):
            yield from (keyword.arg for keyword in made.keywords if keyword.arg is not None)
            if made.args:
                yield "images"  # of `ImagePipelineOutput`, which has this field only


def _components(class_name: str) -> Iterator[str]:
    """Yield the names of the components that a pipeline is made of, without those that it can do without."""
    made = sources.method(class_name, "__init__")
    if made is None:
        return
    optional: set[str] = set()
    for owner in sources.lineage(class_name):
        for node in owner.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_optional_components":
                optional |= set(ast.literal_eval(node.value))
    for name, annotation, default in _arguments(made):
        if default is None and name not in optional and not annotation.startswith(("bool", "int", "float", "str")):
            yield name
