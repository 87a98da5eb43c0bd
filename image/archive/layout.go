package archive

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

// File is one file of an image that [WriteLayout] makes. It belongs to root.
// Directories that lead to it need not be listed.
type File struct {
	Path string // absolute, in the image; a directory when it ends in "/"
	Mode int64  // permission bits
	Data []byte
}

// Layout describes an image to write: one layer with a few files.
type Layout struct {
	Reference reference.Reference
	Platform  manifest.Platform // the host's by default
	Config    manifest.ProgramConfig
	Files     []File
}

// WriteLayout writes an image as a tar that is an OCI layout and, for Docker
// before version 25, a saved image too. Equal input gives equal bytes: there
// are no times in it, and the layer is not compressed, since a compressor's
// output changes with its version. It returns the manifest's digest.
func WriteLayout(w io.Writer, l Layout) (digest.Digest, error) {
	layer, err := l.layer()
	if err != nil {
		return "", fmt.Errorf("write image layer: %w", err)
	}
	if l.Platform.OS == "" {
		l.Platform = manifest.Host()
	}
	config, err := json.Marshal(manifest.Config{
		Platform: l.Platform, Config: l.Config,
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	})
	if err != nil {
		return "", fmt.Errorf("write image config: %w", err)
	}
	m, err := manifest.Build(describe(config, ""), []manifest.Descriptor{describe(layer, ocispec.MediaTypeImageLayer)})
	if err != nil {
		return "", err
	}
	documents, err := l.documents(config, layer, m)
	if err != nil {
		return "", err
	}
	if err := writeTar(w, documents); err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	return digest.FromBytes(m), nil
}

func describe(data []byte, mediaType string) manifest.Descriptor {
	return manifest.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// documents returns the files of the layout in the order in which a reader
// wants them.
func (l Layout) documents(config, layer, m []byte) ([]File, error) {
	entry := describe(m, ocispec.MediaTypeImageManifest)
	entry.Platform = &l.Platform
	entry.Annotations = map[string]string{containerdName: l.Reference.String(), ocispec.AnnotationRefName: l.Reference.Tag()}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []manifest.Descriptor{entry},
	})
	if err != nil {
		return nil, err
	}
	list, err := json.Marshal([]saved{{
		Config: blobPath(config), RepoTags: []string{l.Reference.Familiar()}, Layers: []string{blobPath(layer)},
	}})
	if err != nil {
		return nil, err
	}
	version, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return nil, err
	}
	return []File{
		{layoutFile, 0o644, version},
		{indexFile, 0o644, index},
		{manifestFile, 0o644, list},
		{blobPath(m), 0o644, m},
		{blobPath(config), 0o644, config},
		{blobPath(layer), 0o644, layer},
	}, nil
}

func blobPath(data []byte) string {
	d := digest.FromBytes(data)
	return path.Join("blobs", string(d.Algorithm()), d.Encoded())
}

// layer returns the tar of the files and of the directories that lead to them.
func (l Layout) layer() ([]byte, error) {
	files := slices.SortedFunc(slices.Values(l.Files), func(a, b File) int { return bytes.Compare([]byte(a.Path), []byte(b.Path)) })
	var buf bytes.Buffer
	if err := writeTar(&buf, files); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// writeTar writes files, each after the directories that it needs.
func writeTar(w io.Writer, files []File) error {
	tw := tar.NewWriter(w)
	made := map[string]bool{".": true}
	for _, f := range files {
		name := clean(f.Path)
		if err := writeDirs(tw, path.Dir(name), made); err != nil {
			return err
		}
		if err := writeFile(tw, name, f, made); err != nil {
			return err
		}
	}
	return tw.Close()
}

func writeFile(tw *tar.Writer, name string, f File, made map[string]bool) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: f.Mode, Size: int64(len(f.Data)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if strings.HasSuffix(f.Path, "/") {
		made[name] = true
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(f.Data)
	return err
}

func writeDirs(tw *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := writeDirs(tw, path.Dir(dir), made); err != nil {
		return err
	}
	return writeFile(tw, dir, File{Path: dir + "/", Mode: 0o755}, made)
}
