// Package image is a node's image store: what was loaded, imported or fetched,
// by digest and by name, and its layers unpacked for overlay mounts.
//
// It does not mount, run or schedule anything, and it asks no registry: bytes
// come from an archive (Load, Import) or from a [Source] (Fetch), which is a
// peer. Nothing in an image's config changes what this package does.
//
// # Parts
//
//	reference    names            archive  reads and writes image files
//	manifest     JSON documents   unpack   one layer to a directory, sandboxed
//	compression  gzip, zstd       blob     content-addressed files
//
// # Life of an image
//
//	        Load, Import, Fetch                Rootfs
//	(none) --------------------> stored(refs) --------> leased(refs, n)
//	   ^                           |    ^  ^               |
//	   |  Remove of its last       |    |  +---------------+ release, last one
//	   |  reference, or Prune of   |    | Load, Tag give it a reference;
//	   |  an image without any     |    | another image may take one away
//	   +---------------------------+----+
//
// A leased image is not removed: Remove returns [ErrInUse] and Prune passes it
// over. Leases live in memory: an agent takes them again for the containers it
// adopts, before it first calls Remove, Prune or GC.
//
// # On disk
//
//	<root>/images.db            bbolt: what exists; everything below is content
//	<root>/blobs/, ingest/      see package blob
//	<root>/layers/<hex>/fs      an unpacked layer; the name is its chainID
//	<root>/layers/tmp-*         being unpacked; removed by Open
//	<root>/trash/*              being deleted; removed by Open
//
// Buckets of images.db, keys and values in text or JSON:
//
//	meta     "format"                        "1"
//	images   manifest digest                 record
//	refs     normalised reference            manifest digest
//	indexes  index digest                    manifest digest chosen for the host
//	members  blob digest "/" manifest digest ""; which images a blob belongs to
//	layers   chainID                         layerRecord
//
// # Invariants
//
//	I1  Every image in the database is complete: its manifest, config and layers
//	    are in the blob store. Content is durable before the database refers to
//	    it, and the database forgets content before it is deleted.
//	I2  Every reference and every index entry leads to an image.
//	I3  An unpacked layer in the database has its directory, with the content of
//	    its diffID; directories without a record are leftovers. Layers are
//	    synced when the store is closed: those of another boot that were not are
//	    unpacked again.
//	I4  After a crash at any point, Open and one GC leave exactly what the
//	    database refers to.
//	I5  GC deletes nothing while a session, which is adding content, is open; it
//	    is made up for when the last one ends.
//	I6  A blob that belongs to no image is never served to a peer.
//
// # Concurrency
//
// A [Store] may be used from any goroutine, by one process at a time. Fetches of
// the same image, and unpacks of the same layer, share one run; it is cancelled
// when the last of its callers gave up. Lock order: Store.leaseMu, then
// sessions.mu, then the database.
//
// # Errors
//
// Callers branch on [ErrNotFound], [ErrAmbiguous], [ErrInUse], [ErrLocked],
// [ErrFormat] and [ErrSource], and on the errors of the packages above, which
// are wrapped.
package image
