"""Makes the text in a file that says how it was made: XMP for images, a JSON comment for videos."""

import json
import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from rendermill.actors.versions import versions
from rendermill.manifests.schema import PROVENANCE_NAMES

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for media that a trained model made."""

_MAX_XMP_BYTES = 60_000
"""The largest packet: a JPEG's segment holds 65,535 bytes, and a prompt may be longer."""

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<xmp:CreatorTool>{tool}</xmp:CreatorTool>
<Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>
<Iptc4xmpExt:AISystemUsed>{checkpoint}</Iptc4xmpExt:AISystemUsed>
<Iptc4xmpExt:AISystemVersionUsed>{revision}</Iptc4xmpExt:AISystemVersionUsed>
<Iptc4xmpExt:AIPromptInformation>{prompt}</Iptc4xmpExt:AIPromptInformation>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{comment}</rdf:li></rdf:Alt></dc:description>
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def comment(record: Mapping[str, Any]) -> str:
    """Return how an item was made, as JSON.

    Args:
        record: columns of `manifests.schema.RECORD_COLUMNS`. Those that are null are left out.
    """
    made = {key: record[key] for key in PROVENANCE_NAMES if record[key] is not None}
    return json.dumps({"software": _software(), "digital_source_type": DIGITAL_SOURCE_TYPE} | made, ensure_ascii=False)


def xmp(record: Mapping[str, Any]) -> bytes:
    """Return how an item was made, as an XMP packet with properties of the IPTC Photo Metadata Standard 2025.1.

    Its description is the text of `comment`. Prompts that are too long are left out of both.
    """
    packet = _packet(record)
    if len(packet) > _MAX_XMP_BYTES:
        packet = _packet({**record, "prompt": None, "negative_prompt": None})
    return packet


def _packet(record: Mapping[str, Any]) -> bytes:
    values = {
        "tool": _software(),
        "source_type": DIGITAL_SOURCE_TYPE,
        "checkpoint": record["checkpoint"],
        "revision": record["revision"] or "",
        "prompt": record["prompt"] or "",
        "comment": comment(record),
    }
    return _XMP.format(**{name: _in_xml(value) for name, value in values.items()}).encode()


def _in_xml(text: str) -> str:
    # printable text is valid in XML, and this check is ten times faster
    return escape(text if text.isprintable() else _NOT_IN_XML.sub("\ufffd", text))


def _software() -> str:
    return f"rendermill {_VERSION}" if _VERSION else "rendermill"


_VERSION = versions().get("rendermill")
