// Package archive reads images out of files that people pass around, and writes
// such a file.
//
// It understands what `docker save` of any age writes (a tar with manifest.json
// and, since version 25, an OCI layout beside it), OCI layouts as a tar or as a
// folder, and plain tars of a root filesystem (Import). Each tar may be
// compressed with gzip or zstd. It does not unpack layers and keeps no state:
// blobs go to a [Sink], and what remains to be said about them is returned.
//
//	tar ----> scan ----> blobs ------> Sink        (any order, one pass)
//	                \--> documents --> resolve --> []Image
//
// # Invariants
//
//	I1  Every blob of a returned image is in the Sink, with the digest and the
//	    size that its manifest says, and its config agrees with its manifest.
//	I2  An archive is deterministic in meaning: the same bytes give the same
//	    manifest digests on every node. For an archive without manifests one is
//	    built from its config and layers.
//	I3  Nothing is written anywhere but to the Sink; names in a tar are keys of
//	    a map, never paths. Symlinks in a folder do not lead out of it.
//	I4  Counts, names, documents and bytes are bounded; see the constants.
//
// An archive that is refused leaves blobs behind in the Sink that belong to no
// image; the owner of the Sink collects them.
//
// # Concurrency
//
// All functions may be called from any goroutine. They read until they return,
// and stop between two reads when ctx ends.
//
// # Errors
//
// Callers branch on [ErrNotArchive], [ErrNotRootfs] and [ErrInvalid], and on the
// errors of packages manifest and blob, which are wrapped.
//
// # Sources
//
// OCI image layout specification 1.1 (image-layout.md, annotations.md) and
// Docker image specification 1.2 (combined image JSON + filesystem changeset).
package archive
