package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

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

func zstded(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}

func TestRun_UnpacksEveryCompression(t *testing.T) {
	base := scratch(t)
	data := tarOf(t, dirEnt("tmp", 0o1777), file("tmp/a", "a"), file("opt/.wh..wh..opq", ""), device("null", '3', 1, 3))
	want := map[string]string{
		".": "drwxr-xr-x 0:0", "tmp": "dtrwxrwxrwx 0:0", "tmp/a": "-rw-r--r-- 0:0 a",
		"opt": "drwxr-xr-x 0:0 +trusted.overlay.opaque", "null": "Dcrw-rw-rw- 0:0 1,3",
	}
	for name, blob := range map[string][]byte{"tar": data, "gzip": gzipped(t, data), "zstd": zstded(t, data)} {
		t.Run(name, func(t *testing.T) {
			dir := subdir(t, base, name)
			report, err := Run(t.Context(), Request{Blob: blobFile(t, blob), DiffID: digest.FromBytes(data), Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Report{Entries: 4, Bytes: 1, Opaque: []string{"opt"}}, report); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRun_WhereMountsAreShared unpacks where systemd has made mounts share their events, which is the case on most hosts.
func TestRun_WhereMountsAreShared(t *testing.T) {
	base := scratch(t)
	if err := unix.Mount("", base, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	dir := subdir(t, base, "layer")
	if _, err := run(t, dir, nil, tarOf(t, file("a", "a"))); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{".": "drwxr-xr-x 0:0", "a": "-rw-r--r-- 0:0 a"}, tree(t, dir)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func TestRun_InheritsFromParents(t *testing.T) {
	base := scratch(t)
	lower, upper := subdir(t, base, "lower"), subdir(t, base, "upper")
	if _, err := run(t, lower, nil, tarOf(t, dirEnt("tmp", 0o1777).owned(5, 5).xattr("user.k", "v"))); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, upper, []string{lower}, tarOf(t, file("tmp/x", ""))); err != nil {
		t.Fatal(err)
	}
	if got, want := tree(t, upper)["tmp"], "dtrwxrwxrwx 5:5 +user.k"; got != want {
		t.Errorf("tmp is %q, want %q", got, want)
	}
}

func TestRun_RefusesContentThatDoesNotMatch(t *testing.T) {
	base := scratch(t)
	data := tarOf(t, file("a", "a"))
	long := append(bytes.Clone(data), make([]byte, 4096)...)
	for _, tt := range []struct {
		name   string
		blob   []byte
		diffID digest.Digest
		err    error
	}{
		{"other content", data, digest.FromString("x"), ErrDigest},
		{"bytes after the end", long, digest.FromBytes(data), ErrDigest},
		{"those bytes announced", long, digest.FromBytes(long), nil},
		{"cut", data[:512], digest.FromBytes(data[:512]), ErrLayer},
		{"cut gzip", gzipped(t, data)[:40], digest.FromBytes(data), ErrLayer},
		{"xz", []byte("\xfd7zXZ\x00......"), digest.FromString("x"), ErrLayer},
		{"not a tar", bytes.Repeat([]byte("x"), 1024), digest.FromBytes(bytes.Repeat([]byte("x"), 1024)), ErrLayer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := subdir(t, base, tt.name)
			_, err := Run(t.Context(), Request{Blob: blobFile(t, tt.blob), DiffID: tt.diffID, Dir: dir})
			if !errors.Is(err, tt.err) {
				t.Errorf("Run = %v, want %v", err, tt.err)
			}
		})
	}
}

func TestRun_RefusesBombs(t *testing.T) {
	dir := subdir(t, scratch(t), "layer")
	zeros := make([]byte, 8<<20)
	data := tarOf(t, file("zeros", string(zeros)))
	_, err := Run(t.Context(), Request{
		Blob: blobFile(t, zstded(t, data)), DiffID: digest.FromBytes(data), Dir: dir,
		Limits: Limits{Entries: 10, Bytes: 1 << 20},
	})
	if !errors.Is(err, ErrLimit) {
		t.Errorf("Run = %v, want ErrLimit", err)
	}
}

// TestRun_ChildIsConfined looks at a child from outside while it waits for the
// rest of its blob, which comes through a pipe.
func TestRun_ChildIsConfined(t *testing.T) {
	base := scratch(t)
	dir := subdir(t, base, "layer")
	blob, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	data := tarOf(t, file("big", strings.Repeat("x", 4<<20)))
	done := make(chan error, 1)
	go func() {
		_, err := Run(t.Context(), Request{Blob: blob, DiffID: digest.FromBytes(data), Dir: dir})
		done <- err
	}()
	// Far more than a pipe holds: when this returns the child is reading, which
	// it does only inside the sandbox.
	if _, err := feed.Write(data[:3<<20]); err != nil {
		t.Fatal(err)
	}
	pid := childPID(t)
	for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts"} {
		if link(t, pid, "ns/"+ns) == link(t, "self", "ns/"+ns) {
			t.Errorf("the child shares the %s namespace", ns)
		}
	}
	mounts, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil || strings.Count(string(mounts), "\n") != 1 || !strings.Contains(string(mounts), "nosuid,nodev,noexec") {
		t.Errorf("the child's mounts: %q, %v", mounts, err)
	}
	want := "CapBnd=000000008800001b CapEff=000000008800001b CapInh=0000000000000000 CapPrm=000000008800001b NoNewPrivs=1 Seccomp=2"
	confined, threads := 0, privileges(t, pid)
	for _, got := range threads {
		if got == want {
			confined++
		}
	}
	if confined == 0 || confinedThreads && confined < len(threads) {
		t.Errorf("the child's threads have %q, want %s", threads, want)
	}
	if _, err := feed.Write(data[3<<20:]); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRun_KillsTheChildWhenContextEnds(t *testing.T) {
	dir := subdir(t, scratch(t), "layer")
	blob, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	defer blob.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := Run(ctx, Request{Blob: blob, DiffID: digest.FromString(""), Dir: dir})
		done <- err
	}()
	if _, err := feed.Write(make([]byte, 256<<10)); err != nil { // zeros end an archive; the rest is hashed
		t.Fatal(err)
	}
	reason := errors.New("no longer needed")
	cancel(reason)
	if err := <-done; !errors.Is(err, reason) {
		t.Errorf("Run = %v, want %v", err, reason)
	}
}

func TestRun_RefusesToRecurse(t *testing.T) {
	t.Setenv(childEnv, "1")
	if _, err := Run(t.Context(), Request{}); !errors.Is(err, ErrSandbox) {
		t.Errorf("Run = %v, want ErrSandbox", err)
	}
}

func TestChild_IsForItsArgumentsOnly(t *testing.T) {
	for _, args := range [][]string{{"skep"}, {"skep", "daemon"}, {"skep", childArg}, {"skep", "x", "{}"}} {
		if _, ok := Child(args); ok {
			t.Errorf("Child(%q) took them", args)
		}
	}
}

func TestReadahead_PassesDataAndErrors(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 300_000)
	broken := errors.New("broken")
	for _, end := range []error{io.EOF, broken, io.ErrUnexpectedEOF} {
		ra := newReadahead(io.MultiReader(bytes.NewReader(data), errReader{end}))
		got, err := io.ReadAll(ra)
		if end == io.EOF {
			end = nil
		}
		if !errors.Is(err, end) || !bytes.Equal(got, data) {
			t.Errorf("read %d bytes, %v, want %d, %v", len(got), err, len(data), end)
		}
		ra.Close()
	}
	ra := newReadahead(bytes.NewReader(make([]byte, 64<<20)))
	ra.Close() // before the end
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// childPID returns the only child process of this one.
func childPID(t *testing.T) string {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, list := range lists {
		data, _ := os.ReadFile(list)
		pids = append(pids, strings.Fields(string(data))...)
	}
	if len(pids) == 0 {
		t.Skip("needs /proc/<pid>/task/<tid>/children (CONFIG_PROC_CHILDREN)")
	}
	if len(pids) != 1 {
		t.Fatalf("children: %v", pids)
	}
	return pids[0]
}

func link(t *testing.T, pid, name string) string {
	t.Helper()
	to, err := os.Readlink(fmt.Sprintf("/proc/%s/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// privileges returns, for each thread of pid, what the kernel lets it do.
func privileges(t *testing.T, pid string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/" + pid + "/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	var threads []string
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // the thread ended
		}
		var words []string
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(line, ":")
			if strings.HasPrefix(key, "Cap") && key != "CapAmb" || key == "NoNewPrivs" || key == "Seccomp" {
				words = append(words, key+"="+strings.TrimSpace(value))
			}
		}
		slices.Sort(words)
		threads = append(threads, strings.Join(words, " "))
	}
	return threads
}
