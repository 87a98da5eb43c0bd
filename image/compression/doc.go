// Package compression recognises how a stream is compressed by its first bytes
// and undoes it.
//
// It knows gzip and zstd, which the OCI image specification allows, and
// streams that are not compressed. It trusts no media type and no file name.
// Decompressed data is not bounded here: the caller knows what is reasonable.
//
// The package has no state. A reader belongs to one goroutine at a time. The
// only error to branch on is [ErrUnsupported].
package compression
