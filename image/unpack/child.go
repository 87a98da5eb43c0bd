package unpack

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/opencontainers/go-digest"

	"github.com/skep-io/skep/image/compression"
)

// Child does the child's part when args, the program's arguments with its name,
// say that this process is one; ok is false otherwise. The hosting program's
// main must call it first and exit with code when ok:
//
//	if code, ok := unpack.Child(os.Args); ok {
//		os.Exit(code)
//	}
func Child(args []string) (code int, ok bool) {
	if len(args) != 3 || args[1] != childArg {
		return 0, false
	}
	// Without a second libc or runtime in the way this thread, which applies,
	// is the one whose credentials matter; see dropCapabilities.
	runtime.LockOSThread()
	out := os.NewFile(reportFD, "report")
	if out == nil {
		return 2, true
	}
	report, err := serve(args[2])
	a := answer{Report: report}
	if err != nil {
		a = answer{Kind: kindOf(err), Error: err.Error()}
	}
	if err := json.NewEncoder(out).Encode(a); err != nil {
		return 1, true
	}
	return 0, true
}

func kindOf(err error) string {
	for name, sentinel := range kinds() {
		if errors.Is(err, sentinel) {
			return name
		}
	}
	return ""
}

// serve carries out one order inside the sandbox.
func serve(arg string) (Report, error) {
	var o order
	if err := json.Unmarshal([]byte(arg), &o); err != nil {
		return Report{}, fmt.Errorf("%w: read order: %w", ErrSandbox, err)
	}
	if err := o.DiffID.Validate(); err != nil {
		return Report{}, fmt.Errorf("%w: read order: %w", ErrSandbox, err)
	}
	if err := enterSandbox(targetFD, o.Limits.withDefaults()); err != nil {
		return Report{}, fmt.Errorf("%w: %w", ErrSandbox, err)
	}
	parents := make([]int, o.Parents)
	for n := range parents {
		parents[n] = firstParentFD + n
	}
	return applyVerified(targetFD, parents, os.Stdin, o)
}

// applyVerified decompresses, hashes and applies blob, and compares the hash of
// the whole stream, trailing bytes included (I4). Decompression and hashing run
// beside the system calls of Apply.
func applyVerified(root int, parents []int, blob io.Reader, o order) (Report, error) {
	plain, _, err := compression.NewReader(blob)
	if err != nil {
		return Report{}, fmt.Errorf("%w: %w", ErrLayer, err)
	}
	defer plain.Close()
	hashed := &hashing{r: &limited{plain, o.Stream}, hash: o.DiffID.Algorithm().Hash()}
	ahead := newReadahead(hashed)
	defer ahead.Close()
	report, err := Apply(root, parents, ahead, o.Limits)
	if err != nil {
		return Report{}, err
	}
	if _, err := io.Copy(io.Discard, ahead); err != nil {
		return Report{}, err
	}
	if got := digest.NewDigest(o.DiffID.Algorithm(), hashed.hash); got != o.DiffID {
		return Report{}, fmt.Errorf("%w: it hashes to %s, expected %s", ErrDigest, got, o.DiffID)
	}
	return report, nil
}

// hashing hashes what is read through it. It is what package digest's verifier
// is, without its copy.
type hashing struct {
	r    io.Reader
	hash hash.Hash
}

func (h *hashing) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.hash.Write(p[:n])
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, ErrLimit) {
		return n, err
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) { // the disk's fault, not the layer's
		return n, err
	}
	return n, fmt.Errorf("%w: decompress: %w", ErrLayer, err)
}
