package unpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// hostile are layers that try to reach out of their directory. out is a
// directory beside the layer, absolute on the host, full of canaries. The
// layers that have an error are refused with it; the others are harmless
// because everything they do lands inside.
func hostile(out string) []struct {
	name    string
	err     error
	entries []ent
} {
	trusted := dirEnt("d", 0o755).xattr("trusted.overlay.redirect", "/etc")
	badLink := ent{tar.Header{Typeflag: tar.TypeLink, Name: "d", Linkname: "/"}, ""}
	return []struct {
		name    string
		err     error
		entries []ent
	}{
		{"dot-dot", ErrLayer, []ent{file("../out/canary", "pwned")}},
		{"dot-dot in the middle", ErrLayer, []ent{file("a/../../out/canary", "pwned")}},
		{"dot-dot alone", ErrLayer, []ent{dirEnt("..", 0o777)}},
		{"absolute", nil, []ent{file(out+"/canary", "pwned")}},
		{"many slashes", nil, []ent{file("//"+out+"/canary", "pwned")}},
		{"write through absolute symlink", nil, []ent{symlink("l", out), file("l/canary", "pwned")}},
		{"write through relative symlink", nil, []ent{symlink("l", "../out"), file("l/canary", "pwned")}},
		{"write through nested symlinks", nil, []ent{symlink("a", ".."), symlink("b", "a/out"), file("b/canary", "pwned")}},
		{"write through a replaced directory", nil, []ent{dirEnt("l", 0o755), file("l/x", ""), symlink("l", out), file("l/canary", "pwned")}},
		{"overwrite a symlink to a file", nil, []ent{symlink("l", out+"/canary"), file("l", "pwned")}},
		{"write through /proc", nil, []ent{symlink("l", "/proc/self/root"), file("l"+out+"/canary", "pwned")}},
		{"write through /proc/self/cwd", nil, []ent{symlink("l", "/proc/self/cwd/.."), file("l/out/canary", "pwned")}},
		{"symlink loop", ErrLayer, []ent{symlink("a", "b"), symlink("b", "a"), file("a/x", "")}},
		{"hard link out", ErrLayer, []ent{hardlink("l", "../out/canary"), file("l", "pwned")}},
		{"hard link to the host", ErrLayer, []ent{hardlink("l", out+"/canary"), file("l", "pwned")}},
		{"hard link through a symlink", ErrLayer, []ent{symlink("s", out), hardlink("l", "s/canary"), file("l", "pwned")}},
		{"hard link to a symlink", nil, []ent{symlink("s", out+"/canary"), hardlink("l", "s"), file("l", "pwned")}},
		{"hard link to a directory", nil, []ent{dirEnt("a", 0o755), hardlink("b", "a")}},
		{"hard link to the root", nil, []ent{badLink}},
		{"whiteout through a symlink", nil, []ent{symlink("l", out), file("l/.wh.canary", "")}},
		{"whiteout of dot-dot", ErrLayer, []ent{file(".wh...", "")}},
		{"whiteout of nothing", ErrLayer, []ent{file(".wh.", "")}},
		{"opaque through a symlink", nil, []ent{symlink("l", out), file("l/.wh..wh..opq", "")}},
		{"opaque through a parent symlink", nil, []ent{symlink("l", ".."), file("l/.wh..wh..opq", "")}},
		{"directory over a symlink", nil, []ent{symlink("l", out), dirEnt("l", 0o777), file("l/canary", "pwned")}},
		{"mode through a symlink", nil, []ent{symlink("l", out), dirEnt("l/", 0o777).owned(7, 7)}},
		{"root as a symlink", ErrLayer, []ent{symlink(".", out), file("canary", "pwned")}},
		{"root as a file", ErrLayer, []ent{file("./.", "pwned")}},
		{"raw whiteout", ErrLayer, []ent{device("w", tar.TypeChar, 0, 0)}},
		{"raw whiteout by wrapped numbers", ErrLayer, []ent{device("w", tar.TypeChar, 0x1000, 0)}},
		{"disk", nil, []ent{device("sda", tar.TypeBlock, 8, 0).mode(0o666)}},
		{"overlay redirect", nil, []ent{trusted, file("d/x", "")}},
		{"owner that wraps", ErrLayer, []ent{file("f", "").owned(1<<32-1, 0)}},
		{"negative owner", ErrLayer, []ent{file("f", "").owned(-1, 0)}},
		{"file as parent", ErrLayer, []ent{file("f", ""), file("f/x", "")}},
		{"pipe as parent", ErrLayer, []ent{device("p", tar.TypeFifo, 0, 0), file("p/x", "")}},
	}
}

// field makes the directory with the canaries and the empty layer directory.
func field(t *testing.T) (out, layer string) {
	t.Helper()
	base := scratch(t)
	out = subdir(t, base, "out")
	for _, name := range []string{"canary", "other"} {
		if err := os.WriteFile(filepath.Join(out, name), []byte("alive"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return out, subdir(t, base, "layer")
}

// checkField compares everything beside the layer, and that no inode of it is
// reachable from the layer.
func checkField(t *testing.T, before map[string]string, out, layer string) {
	t.Helper()
	if diff := cmp.Diff(before, tree(t, out)); diff != "" {
		t.Errorf("outside changed (-before +after):\n%s", diff)
	}
	entries, err := os.ReadDir(filepath.Dir(layer))
	if err != nil || len(entries) != 2 {
		t.Errorf("beside the layer: %v, %v", entries, err)
	}
	canary, err := os.Stat(filepath.Join(out, "canary"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range tree(t, layer) {
		if info, err := os.Lstat(filepath.Join(layer, name)); err == nil && os.SameFile(info, canary) {
			t.Errorf("%s is the canary", name)
		}
	}
}

// TestApply_ContainsHostileLayers runs without the sandbox: I1 must hold by the
// applier alone.
func TestApply_ContainsHostileLayers(t *testing.T) {
	for n, name := range hostileNames() {
		t.Run(name, func(t *testing.T) {
			out, layer := field(t)
			tt, before := hostile(out)[n], tree(t, out)
			_, err := apply(t, layer, nil, hostileTar(t, tt.entries), Limits{})
			checkHostile(t, tt.err, err)
			checkField(t, before, out, layer)
		})
	}
}

func TestRun_ContainsHostileLayers(t *testing.T) {
	for n, name := range hostileNames() {
		t.Run(name, func(t *testing.T) {
			out, layer := field(t)
			tt, before := hostile(out)[n], tree(t, out)
			_, err := run(t, layer, nil, hostileTar(t, tt.entries))
			checkHostile(t, tt.err, err)
			checkField(t, before, out, layer)
		})
	}
}

func hostileNames() []string {
	var names []string
	for _, tt := range hostile("/out") {
		names = append(names, tt.name)
	}
	return names
}

// checkHostile demands the error of the table. Where that is nil the layer may
// be refused or not: hard links to directories, for one, the kernel refuses.
func checkHostile(t *testing.T, want, got error) {
	t.Helper()
	if want != nil && !errors.Is(got, want) {
		t.Errorf("err = %v, want %v", got, want)
	}
	if got != nil {
		t.Log(got)
	}
}

// hostileTar writes the headers that the tar writer refuses to write.
func hostileTar(t *testing.T, entries []ent) []byte {
	t.Helper()
	var buf bytes.Buffer
	for _, e := range entries {
		e := e
		if e.Uid == -1 || e.Uid == 1<<32-1 {
			e.Format = tar.FormatGNU
		}
		one := tarOf(t, e)
		buf.Write(one[:len(one)-1024])
	}
	buf.Write(make([]byte, 1024))
	return buf.Bytes()
}

func run(t testing.TB, dir string, parents []string, blob []byte) (Report, error) {
	t.Helper()
	return Run(t.Context(), Request{Blob: blobFile(t, blob), DiffID: digest.FromBytes(blob), Dir: dir, Parents: parents})
}

func blobFile(t testing.TB, data []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
