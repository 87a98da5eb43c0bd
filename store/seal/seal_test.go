package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/skep-io/skep/store/vfs"
)

func newRing(t testing.TB) *Ring {
	t.Helper()
	m := vfs.NewMem()
	if err := m.MkdirAll("/d", 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := CreateRing(m, "/d/ring", "c1", NewKey(), SourceKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRing_OpensOnlyAtItsPlace(t *testing.T) {
	r := newRing(t)
	content := []byte("the content of an entry")
	place := Place{Kind: KindEntry, Index: 7, Term: 3, Part: 1}
	envelope, err := r.Seal(nil, place, content)
	if err != nil {
		t.Fatal(err)
	}
	if len(envelope) != len(content)+Overhead || bytes.Contains(envelope, content) {
		t.Errorf("envelope has %d bytes for %d", len(envelope), len(content))
	}
	if got, err := r.Open(place, envelope); err != nil || !bytes.Equal(got, content) {
		t.Errorf("open: %q, %v", got, err)
	}
	for _, other := range []Place{
		{Kind: KindSnapshot, Index: 7, Term: 3, Part: 1},
		{Kind: KindEntry, Index: 8, Term: 3, Part: 1},
		{Kind: KindEntry, Index: 7, Term: 4, Part: 1},
		{Kind: KindEntry, Index: 7, Term: 3},
	} {
		if _, err := r.Open(other, envelope); !errors.Is(err, ErrOpen) {
			t.Errorf("opened at %+v: %v", other, err)
		}
	}
	r.cluster = "c2"
	if _, err := r.Open(place, envelope); !errors.Is(err, ErrOpen) {
		t.Errorf("opened in another cluster: %v", err)
	}
}

func TestRing_NonceNeverRepeats(t *testing.T) {
	r := newRing(t)
	seen := map[string]bool{}
	for range 1000 {
		envelope, err := r.Seal(nil, Place{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		nonce := string(envelope[headerSize : headerSize+24])
		if seen[nonce] {
			t.Fatal("a nonce repeats")
		}
		seen[nonce] = true
	}
}

func TestRing_RotateRewrapPrune(t *testing.T) {
	m := vfs.NewMem()
	if err := m.MkdirAll("/d", 0o700); err != nil {
		t.Fatal(err)
	}
	file, unlock := NewKey(), NewKey()
	r, err := CreateRing(m, "/d/ring", "c1", file, SourceKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CreateRing(m, "/d/ring", "c1", file, SourceKeyFile); !errors.Is(err, os.ErrExist) {
		t.Errorf("create over an old ring: %v", err)
	}
	old, err := r.Seal(nil, Place{}, []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Rotate(), r.Rewrap(unlock, SourceUnlockKey)); err != nil {
		t.Fatal(err)
	}
	if source, err := RingSource(m, "/d/ring"); err != nil || source != SourceUnlockKey || r.Source() != source {
		t.Errorf("source: %v, %v", source, err)
	}
	if _, err := OpenRing(m, "/d/ring", "c1", file); !errors.Is(err, ErrWrongKey) {
		t.Errorf("old key: %v", err)
	}
	if _, err := OpenRing(m, "/d/ring", "c2", unlock); !errors.Is(err, ErrWrongKey) {
		t.Errorf("other cluster: %v", err)
	}
	reopened, err := OpenRing(m, "/d/ring", "c1", unlock)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := reopened.Open(Place{}, old); err != nil || string(got) != "old" {
		t.Errorf("old envelope: %q, %v", got, err)
	}
	fresh, err := reopened.Seal(nil, Place{}, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := keyID(old); a != 1 {
		t.Errorf("old key id %d", a)
	}
	if b, _ := keyID(fresh); b != 2 {
		t.Errorf("new key id %d", b)
	}
	if err := errors.Join(reopened.Prune(), reopened.Prune()); err != nil {
		t.Fatal(err)
	}
	if _, err := reopened.Open(Place{}, old); !errors.Is(err, ErrOpen) {
		t.Errorf("old envelope after prune: %v", err)
	}
	if found, err := m.Contains(reopened.deks.keys[2].key.Bytes()); err != nil || found {
		t.Errorf("a data key is on disk in the clear: %v, %v", found, err)
	}
}

// Every crash during changes of the ring leaves one that the old KEK or the new one opens, with all keys that were in use.
func TestRing_SurvivesEveryCrashPoint(t *testing.T) {
	m := vfs.NewMem()
	if err := m.MkdirAll("/d", 0o700); err != nil {
		t.Fatal(err)
	}
	keks := []Key{NewKey(), NewKey()}
	r, err := CreateRing(m, "/d/ring", "c1", keks[0], SourceKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	var envelopes [][]byte
	points := 0
	m.OnWrite(func() {
		for seed := range uint64(10) {
			after, err := m.Crash(rand.New(rand.NewPCG(seed, uint64(points))))
			if err != nil {
				t.Fatal(err)
			}
			recovered, err := OpenRing(after, "/d/ring", "c1", keks[0])
			if err != nil {
				recovered, err = OpenRing(after, "/d/ring", "c1", keks[1])
			}
			if err != nil {
				t.Fatalf("point %d: %v", points, err)
			}
			for i, envelope := range envelopes {
				if _, err := recovered.Open(Place{}, envelope); err != nil {
					t.Fatalf("point %d: envelope %d: %v", points, i, err)
				}
			}
			points++
		}
	})
	for i := range 6 {
		envelope, err := r.Seal(nil, Place{}, []byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		envelopes = append(envelopes, envelope)
		if err := errors.Join(r.Rotate(), r.Rewrap(keks[i%2], SourceUnlockKey)); err != nil {
			t.Fatal(err)
		}
	}
	if points < 400 {
		t.Errorf("only %d crash points", points)
	}
}

func TestRing_FailedWriteChangesNothing(t *testing.T) {
	m := vfs.NewMem()
	if err := m.MkdirAll("/d", 0o700); err != nil {
		t.Fatal(err)
	}
	failing := false
	fsys := vfs.Inject(m, func(op vfs.Op) error {
		if failing && op.Kind == "Sync" {
			return errors.New("broken disk")
		}
		return nil
	})
	kek := NewKey()
	r, err := CreateRing(fsys, "/d/ring", "c1", kek, SourceKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	failing = true
	if err := r.Rotate(); err == nil {
		t.Error("rotate on a broken disk returned no error")
	}
	if err := r.Rewrap(NewKey(), SourceUnlockKey); err == nil {
		t.Error("rewrap on a broken disk returned no error")
	}
	if r.deks.current != 1 || len(r.deks.keys) != 1 || r.Source() != SourceKeyFile {
		t.Errorf("the ring moved: %d, %v", r.deks.current, r.source)
	}
	if _, err := OpenRing(m, "/d/ring", "c1", kek); err != nil {
		t.Errorf("after the failures: %v", err)
	}
}

func TestUnlockKey_RefusesEveryChange(t *testing.T) {
	k := NewKey()
	text := k.UnlockKey()
	if got, err := ParseUnlockKey(" " + text + "\n"); err != nil || !got.Equal(k) {
		t.Fatalf("round trip: %v", err)
	}
	for i := range text {
		for _, c := range "A2z-" {
			changed := text[:i] + string(c) + text[i+1:]
			if changed == text {
				continue
			}
			if _, err := ParseUnlockKey(changed); !errors.Is(err, ErrUnlockKey) {
				t.Errorf("character %d changed to %q: %v", i, c, err)
			}
		}
		if _, err := ParseUnlockKey(text[:i]); !errors.Is(err, ErrUnlockKey) {
			t.Errorf("cut after %d: %v", i, err)
		}
	}
}

func TestKey_NeverPrintsItself(t *testing.T) {
	k := NewKey()
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "key", k, "in", struct{ K Key }{k})
	encoded, err := json.Marshal(map[string]any{"k": k, "m": map[string]Key{"x": k}})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %x %d %v %v", k, k, k, k, k, k, k, &k, []Key{k}) + fmt.Sprint(struct{ K Key }{k}) +
		log.String() + string(encoded) + k.String() + k.GoString()
	hex := fmt.Sprintf("%x", k.Bytes()[:4])
	if strings.Contains(all, hex) || strings.Contains(all, string(k.Bytes()[:4])) || strings.Contains(all, fmt.Sprint(k.bytes[0], " ", k.bytes[1])) {
		t.Errorf("the key shows: %s", all)
	}
	if strings.Count(all, redacted) < 13 {
		t.Errorf("not redacted: %s", all)
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/kek"
	k, err := KeyFile(vfs.OS{}, path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := KeyFile(vfs.OS{}, path); err != nil || !again.Equal(k) || k.IsZero() {
		t.Errorf("second read: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := KeyFile(vfs.OS{}, path); !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by others: %v", err)
	}
	for _, content := range []string{"", "something else\n", keyFileHead + "\nAAAA\n", keyFileHead + "\n" + strings.Repeat("A", 300)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := KeyFile(vfs.OS{}, path); err == nil {
			t.Errorf("accepted %q", content)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	r := newRing(f)
	f.Add([]byte("content"), uint16(3), byte(1))
	f.Fuzz(func(t *testing.T, content []byte, at uint16, flip byte) {
		place := Place{Kind: KindEntry, Index: 1, Term: 1}
		envelope, err := r.Seal(nil, place, content)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Open(place, envelope); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("round trip: %v", err)
		}
		if flip != 0 {
			envelope[int(at)%len(envelope)] ^= flip
			if _, err := r.Open(place, envelope); !errors.Is(err, ErrOpen) {
				t.Fatalf("a flipped bit at %d was not noticed: %v", int(at)%len(envelope), err)
			}
		}
		if _, err := r.Open(place, content); err == nil {
			t.Fatal("opened something that was never sealed")
		}
	})
}

func FuzzRingFile(f *testing.F) {
	f.Add([]byte(ringMagic + "1\x01abc"))
	f.Add([]byte(ringMagic + "2\x01abc"))
	f.Fuzz(func(t *testing.T, content []byte) {
		m := vfs.NewMem()
		if err := m.MkdirAll("/d", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := vfs.WriteFile(m, "/d/ring", 0o600, content); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenRing(m, "/d/ring", "c1", Key{}); err == nil {
			t.Fatal("opened a ring that was never written")
		}
	})
}

func FuzzUnlockKey(f *testing.F) {
	f.Add(NewKey().UnlockKey())
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseUnlockKey(text)
		if err == nil && k.UnlockKey() != strings.TrimSpace(text) {
			t.Fatal("another spelling of the key was accepted")
		}
	})
}
