package compression

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrUnsupported is returned when a stream is compressed in a way that images
// do not use.
var ErrUnsupported = errors.New("unsupported compression")

const (
	// maxWindow is the memory that a zstd stream may ask for. The format allows
	// far more; encoders use up to 128 MiB with --long.
	maxWindow = 128 << 20
	// readBuffer is the size of one read of the compressed stream.
	readBuffer = 256 << 10
)

// Kind is how a stream is compressed.
type Kind string

// The kinds that images use.
const (
	None Kind = "none"
	Gzip Kind = "gzip"
	Zstd Kind = "zstd"
)

// LayerType returns the OCI media type of a layer of this kind.
func (k Kind) LayerType() string {
	switch k {
	case Gzip:
		return ocispec.MediaTypeImageLayerGzip
	case Zstd:
		return ocispec.MediaTypeImageLayerZstd
	default:
		return ocispec.MediaTypeImageLayer
	}
}

// magics are the first bytes of compressed streams. Those without a kind are
// recognised only to say so.
var magics = []struct {
	magic []byte
	kind  Kind
	name  string
}{
	{[]byte{0x1f, 0x8b, 0x08}, Gzip, "gzip"},
	{[]byte{0x28, 0xb5, 0x2f, 0xfd}, Zstd, "zstd"},
	{[]byte("BZh"), "", "bzip2"},
	{[]byte("\xfd7zXZ\x00"), "", "xz"},
}

// Detect returns how a stream that begins with head is compressed. Six bytes
// are enough.
func Detect(head []byte) (Kind, error) {
	for _, m := range magics {
		if !bytes.HasPrefix(head, m.magic) {
			continue
		}
		if m.kind == "" {
			return "", fmt.Errorf("%w: %s; decompress it first", ErrUnsupported, m.name)
		}
		return m.kind, nil
	}
	return None, nil
}

// NewReader returns the decompressed stream and how it was compressed. Closing
// the reader frees its buffers; it does not close r.
func NewReader(r io.Reader) (io.ReadCloser, Kind, error) {
	buffered := bufio.NewReaderSize(r, readBuffer)
	head, err := buffered.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, "", err
	}
	kind, err := Detect(head)
	if err != nil {
		return nil, "", err
	}
	switch kind {
	case Gzip:
		gz, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, "", fmt.Errorf("read gzip stream: %w", err)
		}
		return gz, kind, nil
	case Zstd:
		zs, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, "", fmt.Errorf("read zstd stream: %w", err)
		}
		return zs.IOReadCloser(), kind, nil
	default:
		return io.NopCloser(buffered), None, nil
	}
}
