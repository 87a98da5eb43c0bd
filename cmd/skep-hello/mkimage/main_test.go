package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/skep-io/skep/image/archive"
	"github.com/skep-io/skep/image/blob"
	"github.com/skep-io/skep/image/manifest"
)

func TestRun_MakesTheSameImageEachTime(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "skep-hello")
	if err := os.WriteFile(program, []byte("ELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	var outputs [][]byte
	for _, name := range []string{"a.tar.gz", "b.tar.gz", "c.tar"} {
		path := filepath.Join(dir, name)
		if err := run(path, manifest.Host().Architecture, program); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		outputs = append(outputs, data)
	}
	if !bytes.Equal(outputs[0], outputs[1]) {
		t.Error("two runs differ")
	}
	sink, err := blob.Open(blob.Config{Root: filepath.Join(dir, "blobs")})
	if err != nil {
		t.Fatal(err)
	}
	var first archive.Image
	for _, data := range outputs[1:] {
		images, err := archive.Read(t.Context(), bytes.NewReader(data), sink, archive.Options{})
		if err != nil || len(images) != 1 || images[0].References[0].String() != "skep.local/hello:latest" {
			t.Fatalf("Read = %+v, %v", images, err)
		}
		if first.Manifest == "" {
			first = images[0]
		}
		if images[0].Manifest != first.Manifest {
			t.Errorf("compressed and not: %s and %s", first.Manifest, images[0].Manifest)
		}
	}
}

func TestRun_MissingProgram(t *testing.T) {
	if err := run(filepath.Join(t.TempDir(), "x.tar"), "amd64", "/nonexistent"); err == nil {
		t.Error("run succeeded")
	}
}
