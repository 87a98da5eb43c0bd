// Command mkimage makes the built-in image skep.local/hello from the static program
// skep-hello, so that the repository needs to hold no binary:
//
//	mkimage -o bin/hello.tar.gz bin/skep-hello
//
// The output is an OCI layout as a tar, compressed when its name ends in .gz.
// Equal programs give equal images. It prints the digest of the manifest.
package main

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skep-io/skep/image/archive"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

func main() {
	output := flag.String("o", "hello.tar", "write the image to this `file`")
	arch := flag.String("arch", runtime.GOARCH, "the processor that the program is for")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: mkimage [-o FILE] [-arch ARCH] PROGRAM")
		os.Exit(2)
	}
	if err := run(*output, *arch, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(output, arch, program string) error {
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	w, finish := io.Writer(&buf), func() error { return nil }
	if strings.HasSuffix(output, ".gz") {
		gz, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
		if err != nil {
			return err
		}
		w, finish = gz, gz.Close
	}
	ref, err := reference.Parse(reference.Local + "/hello")
	if err != nil {
		return err
	}
	digest, err := archive.WriteLayout(w, layout(ref, arch, binary))
	if err != nil {
		return err
	}
	if err := finish(); err != nil {
		return err
	}
	if err := os.WriteFile(output, buf.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Println(digest)
	return nil
}

// layout is the image: the program, the few files that programs expect, and what
// a container runtime mounts something on, so that the image works read-only.
func layout(ref reference.Reference, arch string, binary []byte) archive.Layout {
	files := []archive.File{
		{Path: "/skep-hello", Mode: 0o755, Data: binary},
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/:/skep-hello\nnobody:x:65534:65534:nobody:/:/skep-hello\n")},
		{Path: "/etc/group", Mode: 0o644, Data: []byte("root:x:0:\nnobody:x:65534:\n")},
		{Path: "/tmp/", Mode: 0o1777},
	}
	for _, dir := range []string{"/dev/", "/proc/", "/sys/", "/run/", "/run/secrets/"} {
		files = append(files, archive.File{Path: dir, Mode: 0o755})
	}
	for _, name := range []string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"} {
		files = append(files, archive.File{Path: name, Mode: 0o644})
	}
	return archive.Layout{
		Reference: ref,
		Platform:  manifest.Platform{OS: "linux", Architecture: arch},
		Config: manifest.ProgramConfig{ImageConfig: ocispec.ImageConfig{
			Entrypoint:   []string{"/skep-hello"},
			Env:          []string{"PATH=/"},
			WorkingDir:   "/",
			ExposedPorts: map[string]struct{}{"8080/tcp": {}},
			StopSignal:   "SIGTERM",
			Labels: map[string]string{
				ocispec.AnnotationTitle:       "skep hello",
				ocispec.AnnotationDescription: "says how it is isolated",
				ocispec.AnnotationLicenses:    "Apache-2.0",
			},
		}},
		Files: files,
	}
}
