package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skep-io/skep/image/archive"
	"github.com/skep-io/skep/image/blob"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

func TestLoad_GivesTheSameDigestOnEveryNode(t *testing.T) {
	b := build(t, layerOf(t, "etc/motd=hi"))
	var lists [][]Image
	for range 2 {
		s := open(t, scratch(t))
		load(t, s, b.tar(t, "app:1"))
		load(t, s, b.tar(t, "app:1")) // again: nothing changes
		images, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, images)
		check(t, s)
	}
	ignoreTime := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Loaded" }, cmp.Ignore())
	if diff := cmp.Diff(lists[0], lists[1], ignoreTime); diff != "" {
		t.Errorf("two nodes differ:\n%s", diff)
	}
	if got := lists[0][0]; got.Digest != b.manifest || len(lists[0]) != 1 || !cmp.Equal(got.References, []string{"docker.io/library/app:1"}) {
		t.Errorf("List = %+v, want %s", lists[0], b.manifest)
	}
}

func TestLoad_MovesReferences(t *testing.T) {
	s := open(t, scratch(t))
	first, second := build(t, layerOf(t, "v=1")), build(t, layerOf(t, "v=2"))
	load(t, s, first.tar(t, "app"))
	load(t, s, second.tar(t, "app"))
	if d, err := s.Resolve(t.Context(), "app:latest"); err != nil || d != second.manifest {
		t.Errorf("Resolve = %s, %v, want %s", d, err, second.manifest)
	}
	if d, err := s.Resolve(t.Context(), "app@"+first.manifest.String()); err != nil || d != first.manifest {
		t.Errorf("the first is gone: %s, %v", d, err)
	}
	if _, err := s.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), first.manifest.String()); !errors.Is(err, ErrNotFound) {
		t.Errorf("after Prune: %v, want ErrNotFound", err)
	}
	check(t, s)
}

func TestLoad_IndexLeadsToTheHostsImage(t *testing.T) {
	s := open(t, scratch(t))
	b := build(t, layerOf(t, "a=b"))
	index := b.index(t, buildFor(t, alien(), layerOf(t, "alien=1")))
	images := load(t, s, b.archive(t, index, ocispec.MediaTypeImageIndex, "team/app:1"))
	if images[0].Digest != b.manifest || !cmp.Equal(images[0].Indexes, []digest.Digest{index}) {
		t.Errorf("Load = %+v, want %s of index %s", images, b.manifest, index)
	}
	for _, name := range []string{"team/app:1", index.String(), "team/app@" + index.String(), "team/app:1@" + b.manifest.String()} {
		if d, err := s.Resolve(t.Context(), name); err != nil || d != b.manifest {
			t.Errorf("Resolve(%s) = %s, %v, want %s", name, d, err, b.manifest)
		}
	}
	if r, size, err := s.Blob(t.Context(), index); err != nil || size != int64(len(b.blobs[index])) {
		t.Errorf("Blob(index) = %d, %v", size, err)
	} else {
		r.Close()
	}
	check(t, s)
}

func TestLoad_AllOrNothing(t *testing.T) {
	root := scratch(t)
	s := open(t, root)
	b := build(t, layerOf(t, "a=b"), layerOf(t, "c=d"))
	data := b.tar(t, "app")
	changed := s.Changed()
	for _, n := range []int{600, len(data) / 2, len(data) - 2048} {
		if _, err := s.Load(t.Context(), bytes.NewReader(data[:n])); err == nil {
			t.Fatalf("Load of %d of %d bytes succeeded", n, len(data))
		}
		if left := contents(t, root); len(left) != 0 {
			t.Errorf("Load of %d of %d bytes left %v", n, len(data), left)
		}
	}
	select {
	case <-changed:
		t.Error("Changed although nothing did")
	default:
	}
}

func TestResolve(t *testing.T) {
	s := open(t, scratch(t))
	b := build(t, layerOf(t, "a=b"))
	img := load(t, s, b.tar(t, "reg.example:5000/app:1"))[0]
	hex, config := b.manifest.Encoded(), img.ConfigDigest.Encoded()
	for _, name := range []string{"reg.example:5000/app:1", "sha256:" + hex, hex, hex[:12], "sha256:" + hex[:4], config, config[:12]} {
		if d, err := s.Resolve(t.Context(), name); err != nil || d != b.manifest {
			t.Errorf("Resolve(%s) = %s, %v, want %s", name, d, err, b.manifest)
		}
	}
	for name, want := range map[string]error{
		"reg.example:5000/app": ErrNotFound, "app:1": ErrNotFound, "ffffffffffff": ErrNotFound, strings.Repeat("f", 64): ErrNotFound, "sha256:ffff": ErrNotFound,
		"app@sha256:" + strings.Repeat("0", 64): ErrNotFound, "App": reference.ErrInvalid, "": reference.ErrInvalid,
	} {
		if d, err := s.Resolve(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("Resolve(%s) = %s, %v, want %v", name, d, err, want)
		}
	}
}

func TestResolve_PrefersANameToDigits(t *testing.T) {
	s := open(t, scratch(t))
	b, other := build(t, layerOf(t, "a=b")), build(t, layerOf(t, "c=d"))
	load(t, s, b.tar(t, "app"))
	digits := b.manifest.Encoded()[:8]
	load(t, s, other.tar(t, digits))
	for name, want := range map[string]digest.Digest{digits: other.manifest, "sha256:" + digits: b.manifest} {
		if d, err := s.Resolve(t.Context(), name); err != nil || d != want {
			t.Errorf("Resolve(%s) = %s, %v, want %s", name, d, err, want)
		}
	}
}

func TestResolve_RefusesToGuess(t *testing.T) {
	s := open(t, scratch(t))
	seen := map[string]bool{}
	for n := range 17 { // two of them begin with the same digit
		b := build(t, layerOf(t, fmt.Sprintf("n=%d", n)))
		load(t, s, b.tar(t, ""))
		digit := b.manifest.Encoded()[:1]
		if !seen[digit] {
			seen[digit] = true
			continue
		}
		if d, err := s.Resolve(t.Context(), "sha256:"+digit); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("Resolve(sha256:%s) = %s, %v, want ErrAmbiguous", digit, d, err)
		}
		return
	}
}

func TestInspect(t *testing.T) {
	s := open(t, scratch(t))
	b := build(t, layerOf(t, "a=b"))
	load(t, s, b.tar(t, "app"))
	details, err := s.Inspect(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	c := details.Config.Config
	if details.Digest != b.manifest || c.Entrypoint[0] != "/bin/app" || c.Env[0] != "A=B" || c.User != "7" || c.Labels["l"] != "v" || len(details.Layers) != 1 {
		t.Errorf("Inspect = %+v", details)
	}
	if _, err := s.Inspect(t.Context(), "other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Inspect(other) = %v, want ErrNotFound", err)
	}
}

func TestImport_MakesAnImage(t *testing.T) {
	s := open(t, scratch(t))
	cfg := archive.RootfsConfig{Config: ocispec.ImageConfig{Cmd: []string{"/bin/sh"}}}
	first, err := s.Import(t.Context(), bytes.NewReader(layerOf(t, "bin/sh=x")), "mine", cfg)
	if err != nil {
		t.Fatal(err)
	}
	details, err := s.Inspect(t.Context(), "mine")
	if err != nil || details.Digest != first.Digest || details.Config.Config.Cmd[0] != "/bin/sh" {
		t.Errorf("Inspect = %+v, %v", details, err)
	}
	if _, err := s.Import(t.Context(), strings.NewReader("x"), "Mine", cfg); !errors.Is(err, reference.ErrInvalid) {
		t.Errorf("Import as Mine = %v, want ErrInvalid", err)
	}
	check(t, s)
}

func TestBlob_ServesOnlyWhatBelongsToAnImage(t *testing.T) {
	s := open(t, scratch(t))
	b := build(t, layerOf(t, "a=b"))
	load(t, s, b.tar(t, "app"))
	stray, err := s.blobs.Put(t.Context(), strings.NewReader("private"), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for d, data := range b.blobs {
		r, size, err := s.Blob(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || size != int64(len(data)) || !bytes.Equal(got, data) {
			t.Errorf("Blob(%s): %d of %d bytes, %v", d, len(got), size, err)
		}
	}
	for _, d := range []digest.Digest{stray.Digest, digest.FromString("none")} {
		if _, _, err := s.Blob(t.Context(), d); !errors.Is(err, ErrNotFound) {
			t.Errorf("Blob(%s) = %v, want ErrNotFound", d, err)
		}
	}
	if _, _, err := s.Blob(t.Context(), "sha256:../../images.db"); !errors.Is(err, blob.ErrUnsupported) {
		t.Errorf("Blob(path) = %v, want ErrUnsupported", err)
	}
}

func TestRemove(t *testing.T) {
	root := scratch(t)
	s := open(t, root)
	b := build(t, layerOf(t, "a=b"))
	load(t, s, b.tar(t, "app:1"))
	if err := s.Tag(t.Context(), "app:1", "app:2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "app:1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), "app:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("app:1 is still there: %v", err)
	}
	check(t, s)
	if err := s.Remove(t.Context(), "app:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Remove twice = %v, want ErrNotFound", err)
	}
	if err := s.Remove(t.Context(), "app:2"); err != nil {
		t.Fatal(err)
	}
	if left := contents(t, root); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	load(t, s, b.tar(t, "app:1"))
	if err := s.Remove(t.Context(), b.manifest.Encoded()[:12]); err != nil {
		t.Fatal(err)
	}
	if left := contents(t, root); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestRemove_KeepsSharedLayers(t *testing.T) {
	s := open(t, scratch(t))
	base := layerOf(t, "base=1")
	load(t, s, build(t, base, layerOf(t, "a=1")).tar(t, "a"))
	load(t, s, build(t, base, layerOf(t, "b=1")).tar(t, "b"))
	if err := s.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	check(t, s)
}

func TestChanged_FiresOncePerChange(t *testing.T) {
	s := open(t, scratch(t))
	fired := func(ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	for name, change := range map[string]func() error{
		"load":   func() error { load(t, s, build(t, layerOf(t, "a=b")).tar(t, "app")); return nil },
		"remove": func() error { return s.Remove(t.Context(), "tagged") },
	} {
		if name == "remove" {
			load(t, s, build(t, layerOf(t, "c=d")).tar(t, "tagged"))
		}
		ch := s.Changed()
		if fired(ch) {
			t.Errorf("%s: fired before", name)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if !fired(ch) {
			t.Errorf("%s: did not fire", name)
		}
	}
}

func TestOpen_RefusesASecondProcessAndAnotherFormat(t *testing.T) {
	root := scratch(t)
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "choose another --data-dir") {
		t.Errorf("second Open = %v, want ErrLocked and the flag that helps", err)
	}
	if err := s.update(func(tb tables) error { return tb.bucket("meta").Put([]byte("format"), []byte("99")) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root); !errors.Is(err, ErrFormat) {
		t.Errorf("Open = %v, want ErrFormat", err)
	}
}

func TestOpen_IsPrivate(t *testing.T) {
	root := filepath.Join(scratch(t), "images")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	open(t, root)
	info, err := os.Stat(root)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("root has mode %v, %v, want 0700", info.Mode(), err)
	}
}

func TestLoad_RefusesDamagedContent(t *testing.T) {
	root := scratch(t)
	s := open(t, root)
	b := build(t, layerOf(t, "a=b"))
	load(t, s, b.tar(t, "app"))
	path := filepath.Join(root, "blobs/sha256", b.manifest.Encoded())
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Inspect(t.Context(), "app"); !errors.Is(err, blob.ErrDigest) {
		t.Errorf("Inspect = %v, want ErrDigest", err)
	}
	if _, _, err := s.Rootfs(t.Context(), b.manifest); !errors.Is(err, blob.ErrDigest) {
		t.Errorf("Rootfs = %v, want ErrDigest", err)
	}
}

func TestLoad_RefusesOtherPlatforms(t *testing.T) {
	b := build(t, layerOf(t, "a=b"))
	index := b.index(t, buildFor(t, alien(), layerOf(t, "alien=1")))
	s := open(t, scratch(t), WithPlatform(manifest.Platform{OS: "linux", Architecture: "riscv64"}))
	_, err := s.Load(t.Context(), bytes.NewReader(b.archive(t, index, ocispec.MediaTypeImageIndex, "app")))
	if !errors.Is(err, manifest.ErrPlatform) {
		t.Errorf("Load = %v, want ErrPlatform", err)
	}
	check(t, s)
}
