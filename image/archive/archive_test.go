package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skep-io/skep/image/blob"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

func sink(t testing.TB) *blob.Store {
	t.Helper()
	s, err := blob.Open(blob.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// member is one entry of a tar: a regular file unless link is set.
type member struct {
	name, content string
	link          string
	kind          byte
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: m.name, Mode: 0o644, Size: int64(len(m.content)), Linkname: m.link}
		if m.kind != 0 {
			h.Typeflag, h.Size = m.kind, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, m.content[:h.Size])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func configOf(t testing.TB, platform manifest.Platform, layers ...string) string {
	t.Helper()
	ids := []digest.Digest{}
	for _, l := range layers {
		ids = append(ids, digest.FromString(l))
	}
	return jsonOf(t, manifest.Config{Platform: platform, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: ids}})
}

func blobMember(content string) member {
	return member{name: "blobs/sha256/" + digest.FromString(content).Encoded(), content: content}
}

func descOf(mediaType, content string) manifest.Descriptor {
	return manifest.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
}

// legacy is what docker save wrote up to version 24: the second layer a symlink
// to the first, as Docker 1.10 did for equal layers.
func legacy(t testing.TB) []byte {
	t.Helper()
	layer := string(tarOf(t, member{name: "etc/motd", content: "hi"}))
	config := configOf(t, manifest.Host(), layer, layer)
	name := digest.FromString(config).Encoded() + ".json"
	return tarOf(
		t, member{name: "aaaa/", kind: tar.TypeDir}, member{name: "aaaa/VERSION", content: "1.0"},
		member{name: "aaaa/json", content: "{}"}, member{name: "aaaa/layer.tar", content: layer},
		member{name: "bbbb/layer.tar", link: "../aaaa/layer.tar", kind: tar.TypeSymlink},
		member{name: name, content: config},
		member{name: "manifest.json", content: jsonOf(t, []saved{{name, []string{"app:1", "reg.example/app:2"}, []string{"aaaa/layer.tar", "bbbb/layer.tar"}}})},
		member{name: "repositories", content: "{}"},
	)
}

// layoutMembers is an OCI layout with a two-platform index named team/app:1.
func layoutMembers(t testing.TB) (members []member, index, m digest.Digest) {
	t.Helper()
	var manifests []manifest.Descriptor
	for _, p := range []manifest.Platform{{OS: "linux", Architecture: "s390x"}, manifest.Host()} {
		layer := string(tarOf(t, member{name: "arch", content: p.Architecture}))
		packed := string(gzipped(t, []byte(layer)))
		config := configOf(t, p, layer)
		doc := jsonOf(t, ocispec.Manifest{
			Versioned: specsV2(), Config: descOf(ocispec.MediaTypeImageConfig, config),
			Layers: []manifest.Descriptor{descOf(ocispec.MediaTypeImageLayerGzip, packed)},
		})
		d := descOf(ocispec.MediaTypeImageManifest, doc)
		d.Platform = &p
		manifests, m = append(manifests, d), d.Digest
		if p.Architecture != "s390x" { // the other platform's blobs are left out
			members = append(members, blobMember(packed), blobMember(config), blobMember(doc))
		}
	}
	list := jsonOf(t, ocispec.Index{Versioned: specsV2(), MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
	entry := descOf(ocispec.MediaTypeImageIndex, list)
	entry.Annotations = map[string]string{containerdName: "docker.io/team/app:1", ocispec.AnnotationRefName: "1"}
	top := jsonOf(t, ocispec.Index{Versioned: specsV2(), Manifests: []manifest.Descriptor{entry}})
	members = append(members, blobMember(list), member{name: indexFile, content: top}, member{name: layoutFile, content: `{"imageLayoutVersion":"1.0.0"}`})
	return members, entry.Digest, m
}

func names(images []Image) []string {
	var names []string
	for _, img := range images {
		for _, ref := range img.References {
			names = append(names, ref.Familiar())
		}
	}
	return names
}

func TestRead_LegacyDockerArchive(t *testing.T) {
	var digests []digest.Digest
	for _, data := range [][]byte{legacy(t), gzipped(t, legacy(t)), legacy(t)} {
		s := sink(t)
		images, err := Read(t.Context(), bytes.NewReader(data), s, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"app:1", "reg.example/app:2"}, names(images)); diff != "" {
			t.Errorf("names (-want +got):\n%s", diff)
		}
		digests = append(digests, images[0].Manifest)
		m, err := s.ReadAll(images[0].Manifest, manifest.MaxDocument)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := manifest.Parse(m)
		if err != nil || len(doc.Manifest.Layers) != 2 || len(doc.Manifest.Blobs()) != 2 {
			t.Errorf("manifest %s, %v", m, err)
		}
	}
	if digests[0] != digests[1] || digests[0] != digests[2] {
		t.Errorf("the same archive gave %v", digests)
	}
}

func TestRead_LayoutChoosesThePlatform(t *testing.T) {
	members, index, m := layoutMembers(t)
	images, err := Read(t.Context(), bytes.NewReader(tarOf(t, members...)), sink(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := reference.Parse("team/app:1")
	want := []Image{{Manifest: m, Index: index, References: []reference.Reference{ref}}}
	if diff := cmp.Diff(want, images, cmp.Comparer(func(a, b reference.Reference) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err = Read(t.Context(), bytes.NewReader(tarOf(t, members...)), sink(t), Options{Platform: manifest.Platform{OS: "linux", Architecture: "arm"}})
	if !errors.Is(err, manifest.ErrPlatform) {
		t.Errorf("for arm: %v, want ErrPlatform", err)
	}
	_, err = Read(t.Context(), bytes.NewReader(tarOf(t, members...)), sink(t), Options{Platform: manifest.Platform{OS: "linux", Architecture: "s390x"}})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("for s390x, whose blobs are missing: %v, want ErrInvalid", err)
	}
}

func TestReadDir_GivesTheSameAsItsTar(t *testing.T) {
	members, index, m := layoutMembers(t)
	dir := t.TempDir()
	for _, f := range members {
		path := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	images, err := ReadDir(t.Context(), dir, sink(t), Options{})
	if err != nil || len(images) != 1 || images[0].Manifest != m || images[0].Index != index {
		t.Errorf("ReadDir = %v, %v, want %s of %s", images, err, m, index)
	}

	// A blob that is a symlink out of the folder is not followed.
	stolen := filepath.Join(dir, "blobs/sha256", m.Encoded())
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.Rename(stolen, outside), os.Symlink(outside, stolen)); err != nil {
		t.Fatal(err)
	}
	if images, err := ReadDir(t.Context(), dir, sink(t), Options{}); err == nil {
		t.Errorf("ReadDir followed a symlink out of the folder: %v", images)
	}
	if _, err := ReadDir(t.Context(), t.TempDir(), sink(t), Options{}); !errors.Is(err, ErrNotArchive) {
		t.Errorf("an empty folder: %v, want ErrNotArchive", err)
	}
}

func TestWriteLayout_RoundTrip(t *testing.T) {
	ref, err := reference.Parse("skep.local/hello")
	if err != nil {
		t.Fatal(err)
	}
	l := Layout{
		Reference: ref, Config: manifest.ProgramConfig{ImageConfig: ocispec.ImageConfig{Entrypoint: []string{"/bin/hello"}}},
		Files: []File{{"/etc/motd", 0o644, []byte("hi")}, {"/bin/hello", 0o755, []byte("ELF")}, {"/tmp/", 0o1777, nil}, {"/tmp/x/", 0o700, nil}},
	}
	var first, second bytes.Buffer
	want, err := WriteLayout(&first, l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := WriteLayout(&second, l); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two writes differ")
	}
	images, err := Read(t.Context(), &first, sink(t), Options{})
	if err != nil || len(images) != 1 || images[0].Manifest != want {
		t.Fatalf("Read = %v, %v, want %s", images, err, want)
	}
	if diff := cmp.Diff([]string{"skep.local/hello:latest"}, names(images)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if images, err = Read(t.Context(), bytes.NewReader(withoutIndex(t, second.Bytes())), sink(t), Options{}); err != nil || images[0].Manifest != want {
		t.Errorf("by manifest.json alone: %v, %v, want %s", images, err, want)
	}
}

// withoutIndex drops the OCI documents, as Docker before version 25 ignores them.
func withoutIndex(t *testing.T, data []byte) []byte {
	t.Helper()
	var members []member
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tarOf(t, members...)
		}
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(tr)
		if h.Name != indexFile && h.Name != layoutFile && h.Typeflag == tar.TypeReg {
			members = append(members, member{name: h.Name, content: string(content)})
		}
	}
}

func TestImport(t *testing.T) {
	data := tarOf(t, member{name: "etc/passwd", content: "root"})
	ref, _ := reference.Parse("mine:1")
	cfg := RootfsConfig{Config: ocispec.ImageConfig{Cmd: []string{"/bin/sh"}}}
	var digests []digest.Digest
	for range 2 {
		s := sink(t)
		img, err := Import(t.Context(), bytes.NewReader(gzipped(t, data)), s, ref, cfg, Options{})
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, img.Manifest)
		raw, _ := s.ReadAll(img.Manifest, manifest.MaxDocument)
		doc, err := manifest.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ = s.ReadAll(doc.Manifest.Config.Digest, manifest.MaxDocument)
		config, err := manifest.ParseConfig(raw, *doc.Manifest)
		if err != nil || config.RootFS.DiffIDs[0] != digest.FromBytes(data) || config.Config.Cmd[0] != "/bin/sh" {
			t.Errorf("config %+v, %v", config, err)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("the same tar gave %v", digests)
	}
	for name, in := range map[string][]byte{
		"text": []byte("hello"), "empty": nil, "archive": tarOf(t, member{name: layoutFile, content: "{}"}), "cut gzip": gzipped(t, data)[:30],
	} {
		if _, err := Import(t.Context(), bytes.NewReader(in), sink(t), ref, cfg, Options{}); !errors.Is(err, ErrNotRootfs) {
			t.Errorf("%s: %v, want ErrNotRootfs", name, err)
		}
	}
}

func TestRead_Refuses(t *testing.T) {
	members, _, m := layoutMembers(t)
	wrong := append([]member{{name: "blobs/sha256/" + m.Encoded(), content: "lies"}}, members...)
	layer := string(tarOf(t, member{name: "x", content: "y"}))
	config := configOf(t, manifest.Host(), "another layer")
	list := func(entries ...saved) member { return member{name: manifestFile, content: jsonOf(t, entries)} }
	cfgFile, layerFile := member{name: "c.json", content: config}, member{name: "l.tar", content: layer}
	for _, tt := range []struct {
		name string
		data []byte
		err  error
		says string
	}{
		{"text", []byte(strings.Repeat("hello ", 200)), ErrNotArchive, "not a tar"},
		{"empty", nil, ErrNotArchive, "image import"},
		{"root filesystem", tarOf(t, member{name: "etc/passwd", content: "root"}), ErrNotArchive, "image import"},
		{"device", tarOf(t, member{name: "x.json", kind: tar.TypeChar}), ErrNotArchive, "do not belong"},
		{"wrong blob", tarOf(t, wrong...), blob.ErrDigest, m.Encoded()},
		{"blob path", tarOf(t, member{name: "blobs/sha256/../../etc/passwd.json", content: "x"}), ErrNotArchive, "neither"},
		{"blob name", tarOf(t, member{name: "blobs/sha256/hello", content: "x"}), blob.ErrUnsupported, "hello"},
		{"blob algorithm", tarOf(t, member{name: "blobs/md5/d41d8cd98f00b204e9800998ecf8427e", content: ""}), blob.ErrUnsupported, "md5"},
		{"missing blob", tarOf(t, members[1:]...), ErrInvalid, "missing"},
		{"twice", tarOf(t, list(), list()), ErrInvalid, "twice"},
		{"cut", legacy(t)[:5000], ErrInvalid, "cut off"},
		{"bad JSON", tarOf(t, member{name: manifestFile, content: "["}), ErrInvalid, "JSON"},
		{"empty manifest.json", tarOf(t, list()), ErrNotArchive, "neither"},
		{"missing config", tarOf(t, list(saved{Config: "c.json"})), ErrInvalid, "c.json"},
		{"host path as config", tarOf(t, list(saved{Config: "/etc/passwd"})), ErrInvalid, "not in the archive"},
		{"host path as layer", tarOf(t, cfgFile, list(saved{Config: "c.json", Layers: []string{"../../etc/shadow"}})), ErrInvalid, "not in the archive"},
		{"link circle", tarOf(t, member{name: "c.json", link: "d.json", kind: tar.TypeSymlink}, member{name: "d.json", link: "c.json", kind: tar.TypeSymlink}, list(saved{Config: "c.json"})), ErrInvalid, "circle"},
		{"other layer", tarOf(t, cfgFile, layerFile, list(saved{Config: "c.json", Layers: []string{"l.tar"}})), ErrInvalid, "layer 1 hashes"},
		{"layer count", tarOf(t, cfgFile, layerFile, list(saved{Config: "c.json"})), manifest.ErrInvalid, "names 1 layers"},
		{"bad name", tarOf(t, cfgFile, list(saved{Config: "c.json", RepoTags: []string{"../../x"}})), ErrInvalid, "reference"},
		{"layout version", tarOf(t, member{name: layoutFile, content: `{"imageLayoutVersion":"2.0.0"}`}, member{name: indexFile, content: "{}"}), ErrInvalid, "version"},
		{"xz", []byte("\xfd7zXZ\x00abcdef"), ErrInvalid, "decompress it first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			images, err := Read(t.Context(), bytes.NewReader(tt.data), sink(t), Options{})
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Read = %v, %v, want %v that mentions %q", images, err, tt.err, tt.says)
			}
		})
	}
}

func TestRead_StopsAtItsLimit(t *testing.T) {
	bomb := gzipped(t, tarOf(t, member{name: "big.tar", content: strings.Repeat("\x00", 1<<20)}))
	if _, err := Read(t.Context(), bytes.NewReader(bomb), sink(t), Options{MaxBytes: 1 << 16}); !errors.Is(err, ErrInvalid) {
		t.Errorf("Read = %v, want ErrInvalid", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, bytes.NewReader(legacy(t)), sink(t), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Read = %v, want context.Canceled", err)
	}
}

func FuzzLoad(f *testing.F) {
	members, _, _ := layoutMembers(f)
	f.Add(tarOf(f, members...))
	f.Add(legacy(f))
	f.Add(gzipped(f, legacy(f)))
	s := sink(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		images, err := Read(t.Context(), bytes.NewReader(data), s, Options{MaxBytes: 1 << 22})
		if err != nil {
			return
		}
		if len(images) == 0 {
			t.Fatal("neither image nor error")
		}
		for _, img := range images { // I1
			raw, err := s.ReadAll(img.Manifest, manifest.MaxDocument)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := manifest.Parse(raw)
			if err != nil || doc.Manifest == nil {
				t.Fatalf("manifest %s: %v", raw, err)
			}
			for _, d := range doc.Manifest.Blobs() {
				if size, err := s.Stat(d.Digest); err != nil || size != d.Size {
					t.Fatalf("blob %v has %d bytes, %v", d, size, err)
				}
			}
		}
	})
}

func specsV2() specs.Versioned { return specs.Versioned{SchemaVersion: 2} }
