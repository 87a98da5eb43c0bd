// Package blob is a content-addressed store of immutable files on disk: the
// compressed layers, configs and manifests of images.
//
// It knows nothing about images, names or which blobs are still needed; package
// image decides that and calls [Store.Remove]. It keeps no index: a blob exists
// when its file does.
//
// # Layout
//
//	<root>/blobs/sha256/<hex>   0444, complete and verified
//	<root>/blobs/sha512/<hex>
//	<root>/ingest/tmp-*         being written; removed by Sweep
//	<root>/ingest/part-<alg>-<hex>
//	                            an interrupted download that Resume goes on with
//
// # Life of a blob
//
//	          Write            Commit: digest ok
//	(none) ----------> ingest --------------------> blob ---------> (none)
//	  ^                  |     fsync, rename, fsync       Remove
//	  |                  |     of the directory
//	  +------------------+ Close, a crash, or Commit with the wrong digest
//
// # Invariants
//
//	I1  A file under blobs/ has exactly the bytes that its name says, unless
//	    the disk damaged it: it is renamed there only after its digest was
//	    compared and its bytes were synced. [Store.Verify] finds damage.
//	I2  When Commit has returned nil the blob survives a power failure.
//	I3  A crash at any point leaves either no blob or the whole blob, and at
//	    most one file in ingest/, which the next Sweep removes.
//
// # Concurrency
//
// A [Store] may be used from any goroutine. An [Ingest] and a [Reader] belong
// to one goroutine at a time. One process at a time may use a root; package
// image holds the lock. Resume must not be called twice at a time for the same
// digest.
//
// # Errors
//
// Callers branch on [ErrNotFound], [ErrDigest], [ErrSize] and [ErrUnsupported].
package blob
