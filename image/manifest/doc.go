// Package manifest reads and builds the small JSON documents that describe an
// image: its index, its manifest and its config.
//
// It is pure: bytes in, values out, no files and no network. What it returns
// has been checked against the limits below, so that the packages that act on
// it (archive, image) need not distrust it again. An image's config describes
// the image's program; nothing in it may change what the engine does.
//
//	index ----> manifest ----> config  (what to run, and the diffIDs)
//	(one per    (one per  \--> layer 1 (bottom)
//	 image)      platform) \-> layer n (top)
//
// # Invariants
//
//	I1  A parsed manifest has a config and 0 to MaxLayers layers whose digests
//	    are well formed, whose sizes are not negative, and whose media types
//	    are layers that Skep can unpack. None has URLs: bytes come from peers
//	    and registries by digest, never from where an image says.
//	I2  A document that could be read both as an index and as a manifest is
//	    refused, because two readers would run two different images.
//	I3  Build is deterministic: equal input gives equal bytes on every node.
//	I4  A checked config has as many diffIDs as the manifest has layers.
//	I5  A checked config's health check has a bounded number of words, and no
//	    negative times.
//
// Everything here may be called from any goroutine.
//
// # Errors
//
// Callers branch on [ErrInvalid], [ErrUnsupported] and [ErrPlatform].
//
// # Sources
//
// OCI image specification 1.1 (manifest.md, image-index.md, config.md) and the
// Docker image manifest version 2, schema 2. Schema 1 is refused.
package manifest
