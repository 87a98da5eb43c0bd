package compression

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func TestNewReader(t *testing.T) {
	const text = "forty-two bees"
	var gz, zs bytes.Buffer
	gw := gzip.NewWriter(&gz)
	io.WriteString(gw, text)
	gw.Close()
	zw, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(zw, text)
	zw.Close()
	for _, tt := range []struct {
		kind Kind
		in   string
		out  string
	}{
		{None, text, text},
		{None, "", ""},
		{None, "x", "x"},
		{Gzip, gz.String(), text},
		{Gzip, gz.String() + gz.String(), text + text},
		{Zstd, zs.String(), text},
	} {
		r, kind, err := NewReader(strings.NewReader(tt.in))
		if err != nil || kind != tt.kind {
			t.Errorf("NewReader: kind %q, %v, want %q", kind, err, tt.kind)
			continue
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != tt.out {
			t.Errorf("%s: read %q, %v, want %q", kind, got, err, tt.out)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestNewReader_NamesWhatItCannotRead(t *testing.T) {
	for in, name := range map[string]string{"BZh91AY": "bzip2", "\xfd7zXZ\x00..": "xz"} {
		_, _, err := NewReader(strings.NewReader(in))
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("NewReader(%q) = %v, want ErrUnsupported that names %s", in, err, name)
		}
	}
}
