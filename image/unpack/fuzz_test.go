package unpack

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzApply applies arbitrary bytes, without the sandbox, beside a canary, and
// checks I1 and I2.
func FuzzApply(f *testing.F) {
	for _, tt := range hostile("/out") {
		var data []byte
		for _, e := range tt.entries {
			one := tarOf(f, e)
			data = append(data, one[:len(one)-1024]...)
		}
		f.Add(data)
	}
	base := scratch(f)
	out := subdir(f, base, "out")
	canary := filepath.Join(out, "canary")
	if err := os.WriteFile(canary, []byte("alive"), 0o600); err != nil {
		f.Fatal(err)
	}
	before := describe(f, out) + describe(f, canary)
	n := 0
	f.Fuzz(func(t *testing.T, data []byte) {
		n++
		layer := subdir(t, base, fmt.Sprintf("layer%d-%d", os.Getpid(), n))
		defer removeLayer(t, base, layer)
		_, _ = apply(t, layer, nil, data, Limits{Entries: 1000, Bytes: 1 << 20})
		if after := describe(t, out) + describe(t, canary); after != before {
			t.Fatalf("outside changed from %q to %q", before, after)
		}
		if entries, err := os.ReadDir(out); err != nil || len(entries) != 1 {
			t.Fatalf("outside has %v, %v", entries, err)
		}
		checkXattrs(t, layer)
	})
}

// checkXattrs fails when an image set an attribute that overlayfs obeys.
func checkXattrs(t *testing.T, layer string) {
	t.Helper()
	for name, is := range tree(t, layer) {
		path := filepath.Join(layer, name)
		for _, attr := range xattrs(t, path) {
			if attr != opaqueXattr && !allowedXattr(attr) && attr != "security.capability" {
				t.Fatalf("%s is %q", name, is)
			}
		}
	}
}

func removeLayer(t *testing.T, base, layer string) {
	t.Helper()
	fd, err := unix.Open(base, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := removeAll(fd, filepath.Base(layer), 0); err != nil {
		t.Fatal(err)
	}
}
