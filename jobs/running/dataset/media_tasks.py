"""The steps of a Dataset that turn rendered frames into receipts: encode and store, as files or in shards."""

from dataclasses import dataclass

import pyarrow as pa

from rendermill.actors.media.encoding import Encoding
from rendermill.actors.spec import RendererSpec
from rendermill.manifests.schema import receipt_schema
from rendermill.manifests.storage.folder import Folder


@dataclass(frozen=True)
class MediaTasks:
    """Encodes and stores the media of one model, in tasks beside its actors.

    The methods import `actors.media.store` themselves, so that the driver needs none of the encoders' libraries.

    Attributes:
        extra: The manifest's own columns, which receipts carry.
    """

    spec: RendererSpec
    encoding: Encoding
    output: Folder
    extra: pa.Schema

    def store(self, rendered: pa.Table) -> pa.Table:
        """Encode frames and store each item as a file; return the receipts."""
        from rendermill.actors.media.store import store

        receipts = receipt_schema(self.extra)
        return store(rendered, self.output, self.encoding, receipts, self.spec.encoder, self.spec.writer)

    def encode(self, rendered: pa.Table) -> pa.Table:
        """Encode frames; return receipts with the encoded media."""
        from rendermill.actors.media.store import encode_all

        receipts, patience_seconds = receipt_schema(self.extra), self.output.patience_seconds
        return encode_all(rendered, self.encoding, receipts, self.spec.encoder, patience_seconds)

    def store_shard(self, encoded: pa.Table) -> pa.Table:
        """Store encoded media as one shard; return the receipts."""
        from rendermill.actors.media.store import store_shard

        return store_shard(encoded, self.output, self.extra, self.spec.shard_writer)
