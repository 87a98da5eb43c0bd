package seal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skep-io/skep/store/vfs"
)

func testKEK(t testing.TB) Key {
	t.Helper()
	k, err := KeyFromBytes([]byte("the key-encryption key of a test"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// released is a file that an earlier version wrote.
func released(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withRing returns a file system with a key ring file.
func withRing(t testing.TB, content []byte) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	err := errors.Join(m.MkdirAll("/d", 0o700), vfs.WriteFile(m, "/d/ring", 0o600, content))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// opensBoth checks that a ring opens what the two keys of the golden rings sealed.
func opensBoth(t *testing.T, r *Ring) {
	t.Helper()
	for i, want := range []string{"sealed by the first key", "sealed by the second key"} {
		place := Place{Kind: KindEntry, Index: uint64(7 + i), Term: 3}
		got, err := r.Open(place, released(t, "envelope-"+string(rune('1'+i))))
		if err != nil || string(got) != want {
			t.Errorf("envelope %d: %q, %v", i+1, got, err)
		}
	}
}

// A store of a version that knew no times goes on with its keys, and is written in the new format from then on.
func TestRing_ReadsFormat1(t *testing.T) {
	m := withRing(t, released(t, "ring-1"))
	if source, err := RingSource(m, "/d/ring"); err != nil || source != SourceKeyFile {
		t.Errorf("source: %v, %v", source, err)
	}
	r, err := OpenRing(m, "/d/ring", "c1", testKEK(t))
	if err != nil {
		t.Fatal(err)
	}
	opensBoth(t, r)
	if madeAt, generation := r.DataKey(); !madeAt.IsZero() || generation != 0 {
		t.Errorf("data key of %v, generation %d", madeAt, generation)
	}
	if err := r.Rewrap(testKEK(t), SourceTPM2); err != nil {
		t.Fatal(err)
	}
	again, err := OpenRing(m, "/d/ring", "c1", testKEK(t))
	if err != nil {
		t.Fatal(err)
	}
	opensBoth(t, again)
	if madeAt, _ := again.DataKey(); !madeAt.IsZero() || again.Source() != SourceTPM2 {
		t.Errorf("data key of %v by %v", madeAt, again.Source())
	}
}

func TestRing_ReadsFormat2(t *testing.T) {
	r, err := OpenRing(withRing(t, released(t, "ring-2")), "/d/ring", "c1", testKEK(t))
	if err != nil {
		t.Fatal(err)
	}
	opensBoth(t, r)
	madeAt, generation := r.DataKey()
	if !madeAt.Equal(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) || generation != 7 || r.Source() != SourceKeyFile {
		t.Errorf("data key of %v, generation %d, by %v", madeAt, generation, r.Source())
	}
}

// The format is bound to the envelope: nobody can make a reader take times for keys.
func TestRing_RefusesAnotherFormat(t *testing.T) {
	for _, name := range []string{"ring-1", "ring-2"} {
		for _, format := range "0123" {
			b := released(t, name)
			if rune(b[len(ringMagic)]) == format {
				continue
			}
			b[len(ringMagic)] = byte(format)
			_, err := OpenRing(withRing(t, b), "/d/ring", "c1", testKEK(t))
			if !errors.Is(err, ErrWrongKey) && !errors.Is(err, ErrFormat) {
				t.Errorf("%s as format %c: %v", name, format, err)
			}
		}
	}
}

// The age of the data key is that of the oldest one that opens anything, and is there after a restart.
func TestRing_KnowsTheAgeOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := vfs.NewMem()
		if err := m.MkdirAll("/d", 0o700); err != nil {
			t.Fatal(err)
		}
		kek := NewKey()
		r, err := CreateRing(m, "/d/ring", "c1", kek, SourceKeyFile)
		if err != nil {
			t.Fatal(err)
		}
		check := func(want time.Time, generation uint64) {
			t.Helper()
			reopened, err := OpenRing(m, "/d/ring", "c1", kek)
			if err != nil {
				t.Fatal(err)
			}
			for _, ring := range []*Ring{r, reopened} {
				if got, g := ring.DataKey(); !got.Equal(want) || g != generation {
					t.Errorf("made at %v, generation %d; want %v, %d", got, g, want, generation)
				}
			}
		}
		first := time.Now()
		check(first, 0)
		time.Sleep(time.Hour)
		if err := r.Rotate(); err != nil {
			t.Fatal(err)
		}
		check(first, 0) // the old key still opens what was sealed before
		if err := errors.Join(r.Prune(), r.Served(3)); err != nil {
			t.Fatal(err)
		}
		check(first.Add(time.Hour), 3)
	})
}
