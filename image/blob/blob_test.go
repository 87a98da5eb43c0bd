package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

func open(t *testing.T, root string, step func(string) error) *Store {
	t.Helper()
	s, err := Open(Config{Root: root, Step: step})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ingests(t *testing.T, root string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "ingest"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestPut_RoundTrip(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	data := strings.Repeat("skep", 200_000)
	for _, want := range []digest.Digest{"", digest.FromString(data), digest.SHA512.FromString(data)} {
		for range 2 { // the second time it is there already
			desc, err := s.Put(t.Context(), strings.NewReader(data), want, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if want != "" && desc.Digest != want || desc.Size != int64(len(data)) {
				t.Errorf("Put = %v, want %s with %d bytes", desc, want, len(data))
			}
			r, err := s.Open(desc.Digest)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			r.Close()
			if err != nil || string(got) != data || r.Size() != desc.Size {
				t.Errorf("read %d bytes, %v; size %d", len(got), err, r.Size())
			}
			if err := s.Verify(t.Context(), desc.Digest); err != nil {
				t.Error(err)
			}
		}
	}
	blobs, err := s.List()
	if err != nil || len(blobs) != 2 {
		t.Errorf("List = %v, %v, want 2 blobs", blobs, err)
	}
	if left := ingests(t, s.root); len(left) != 0 {
		t.Errorf("ingest/ holds %v", left)
	}
}

func TestPut_Refuses(t *testing.T) {
	other := digest.FromString("other")
	for _, tt := range []struct {
		name  string
		want  digest.Digest
		limit int64
		err   error
	}{
		{"wrong digest", other, 100, ErrDigest},
		{"too long", "", 3, ErrSize},
		{"path as digest", "sha256:../../../../etc/passwd", 100, ErrUnsupported},
		{"upper-case digest", digest.Digest(strings.ToUpper(string(other))), 100, ErrUnsupported},
		{"sha384", digest.SHA384.FromString("data"), 100, ErrUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir(), nil)
			_, err := s.Put(t.Context(), strings.NewReader("data"), tt.want, tt.limit)
			if !errors.Is(err, tt.err) {
				t.Errorf("Put = %v, want %v", err, tt.err)
			}
			if blobs, _ := s.List(); len(blobs) != 0 {
				t.Errorf("the store holds %v", blobs)
			}
			if left := ingests(t, s.root); len(left) != 0 {
				t.Errorf("ingest/ holds %v", left)
			}
		})
	}
}

func TestPut_RefusesBrokenInputAlthoughTheBlobIsThere(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	desc, err := s.Put(t.Context(), strings.NewReader("data"), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), strings.NewReader("fake"), desc.Digest, 100); !errors.Is(err, ErrDigest) {
		t.Errorf("Put = %v, want ErrDigest", err)
	}
	if err := s.Verify(t.Context(), desc.Digest); err != nil {
		t.Error(err)
	}
}

func TestVerify_FindsDamage(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	desc, err := s.Put(t.Context(), strings.NewReader("data"), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path(desc.Digest), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(desc.Digest), []byte("dat4"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), desc.Digest); !errors.Is(err, ErrDigest) {
		t.Errorf("Verify = %v, want ErrDigest", err)
	}
	if _, err := s.ReadAll(desc.Digest, 100); !errors.Is(err, ErrDigest) {
		t.Errorf("ReadAll = %v, want ErrDigest", err)
	}
	if _, err := s.Put(t.Context(), strings.NewReader("data"), desc.Digest, 100); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), desc.Digest); err != nil {
		t.Errorf("after putting it again: %v", err)
	}
}

func TestOpen_MissingBlob(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	if _, err := s.Open(digest.FromString("x")); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open = %v, want ErrNotFound", err)
	}
	if err := s.Remove(digest.FromString("x")); err != nil {
		t.Errorf("Remove = %v, want nil", err)
	}
}

func TestResume_GoesOnWhereItStopped(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	data := []byte("first half, second half")
	want := digest.FromBytes(data)
	in, err := s.Resume(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(data[:10]); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	in, err = s.Resume(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if in.Offset() != 10 {
		t.Fatalf("Offset = %d, want 10", in.Offset())
	}
	if _, err := in.Write(data[10:]); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(want, int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if left := ingests(t, s.root); len(left) != 0 {
		t.Errorf("ingest/ holds %v", left)
	}
}

func TestResume_ForgetsWrongBytes(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	want := digest.FromString("data")
	in, err := s.Resume(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(in, "lies")
	if _, err := in.Commit(want, -1); !errors.Is(err, ErrDigest) {
		t.Fatalf("Commit = %v, want ErrDigest", err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if left := ingests(t, s.root); len(left) != 0 {
		t.Errorf("ingest/ holds %v", left)
	}
}

func TestSweep_RemovesExpiredParts(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	in, err := s.Resume(t.Context(), digest.FromString("data"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(in, "da")
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if left := ingests(t, s.root); len(left) != 0 {
		t.Errorf("ingest/ holds %v", left)
	}
}

// TestPut_CrashAtEveryStep stops before each step in turn, as a crash would, and
// checks I3 on what is left.
func TestPut_CrashAtEveryStep(t *testing.T) {
	crash := errors.New("crash")
	for at := 0; ; at++ {
		root, n := t.TempDir(), 0
		s := open(t, root, func(string) error {
			if n++; n > at {
				return crash
			}
			return nil
		})
		_, err := s.Put(t.Context(), strings.NewReader("data"), "", 100)
		if err != nil && !errors.Is(err, crash) {
			t.Fatal(err)
		}
		after := open(t, root, nil)
		if err := after.Sweep(time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		if left := ingests(t, root); len(left) != 0 {
			t.Errorf("crash at step %d: ingest/ holds %v", at, left)
		}
		blobs, _ := after.List()
		for _, b := range blobs {
			if err := after.Verify(t.Context(), b.Digest); err != nil {
				t.Errorf("crash at step %d: %v", at, err)
			}
		}
		if err == nil {
			if diff := cmp.Diff([]Descriptor{{digest.FromString("data"), 4}}, blobs); diff != "" {
				t.Errorf("after success (-want +got):\n%s", diff)
			}
			return
		}
	}
}

func TestPut_StopsWhenContextEnds(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, bytes.NewReader(make([]byte, 1<<20)), "", 1<<21); !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v, want context.Canceled", err)
	}
}
