package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skep-io/skep/image/blob"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

// peer serves another store's blobs, with faults.
type peer struct {
	store  *Store
	spoil  func(digest.Digest, io.ReadCloser) (io.ReadCloser, error) // or nil
	asked  atomic.Int64
	ranged atomic.Int64
}

func (p *peer) Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	p.asked.Add(1)
	r, _, err := p.store.Blob(ctx, d)
	if err != nil || p.spoil == nil {
		return r, err
	}
	return p.spoil(d, r)
}

// rangedPeer can go on in the middle.
type rangedPeer struct{ *peer }

func (p rangedPeer) BlobFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	p.ranged.Add(1)
	r, _, err := p.store.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	_, err = r.Seek(offset, io.SeekStart)
	return r, err
}

// wrapped is a reader with another's Close.
type wrapped struct {
	io.Reader
	io.Closer
}

var errCut = errors.New("connection reset")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCut }

// pair returns a store with an image named app, and an empty one.
func pair(t *testing.T) (b *built, from, to *Store) {
	t.Helper()
	b = build(t, layerOf(t, "a="+strings.Repeat("a", 10_000)), layerOf(t, "b=2"))
	from, to = open(t, scratch(t)), open(t, scratch(t))
	load(t, from, b.tar(t, "app"))
	return b, from, to
}

func TestFetch_FromAPeer(t *testing.T) {
	b, from, to := pair(t)
	p := &peer{store: from}
	changed := to.Changed()
	for range 2 {
		if err := to.Fetch(t.Context(), b.manifest, []string{"app:latest", "app@" + b.manifest.String()}, p); err != nil {
			t.Fatal(err)
		}
	}
	<-changed
	if d, err := to.Resolve(t.Context(), "app"); err != nil || d != b.manifest {
		t.Errorf("Resolve = %s, %v, want %s", d, err, b.manifest)
	}
	if n := p.asked.Load(); n != 4 {
		t.Errorf("asked the peer %d times, want 4: manifest, config and two layers, once", n)
	}
	check(t, to)
}

func TestFetch_ByIndex(t *testing.T) {
	b := build(t, layerOf(t, "a=b"))
	index, to := b.index(t, buildFor(t, alien(), layerOf(t, "alien=1"))), open(t, scratch(t))
	if err := to.Fetch(t.Context(), index, []string{"app@" + index.String()}, b); err != nil {
		t.Fatal(err)
	}
	if d, err := to.Resolve(t.Context(), "app@"+index.String()); err != nil || d != b.manifest {
		t.Errorf("Resolve = %s, %v, want %s", d, err, b.manifest)
	}
	third := open(t, scratch(t)) // the index can be fetched on from here
	if err := third.Fetch(t.Context(), index, nil, &peer{store: to}); err != nil {
		t.Fatal(err)
	}
	check(t, to)
}

func TestFetch_FromANodeOfAnotherPlatform(t *testing.T) {
	b, other := build(t, layerOf(t, "a=b")), buildFor(t, alien(), layerOf(t, "alien=1"))
	maps.Copy(b.blobs, other.blobs)
	index := b.index(t, other)
	from, to := open(t, scratch(t)), open(t, scratch(t), WithPlatform(alien()))
	load(t, from, b.archive(t, index, ocispec.MediaTypeImageIndex, "app"))
	check(t, from)
	if err := to.Fetch(t.Context(), index, []string{"app"}, &peer{store: from}); err != nil {
		t.Fatal(err)
	}
	if d, err := to.Resolve(t.Context(), index.String()); err != nil || d != other.manifest {
		t.Errorf("Resolve = %s, %v, want %s", d, err, other.manifest)
	}
	check(t, to)
}

func TestFetch_RefusesALyingPeer(t *testing.T) {
	b, from, _ := pair(t)
	flip := func(_ digest.Digest, r io.ReadCloser) (io.ReadCloser, error) {
		data, err := io.ReadAll(r)
		data[len(data)/2] ^= 1
		return wrapped{bytes.NewReader(data), r}, err
	}
	more := func(_ digest.Digest, r io.ReadCloser) (io.ReadCloser, error) {
		return wrapped{io.MultiReader(r, strings.NewReader("more")), r}, nil
	}
	endless := func(_ digest.Digest, r io.ReadCloser) (io.ReadCloser, error) {
		return wrapped{zeros{}, r}, nil
	}
	short := func(_ digest.Digest, r io.ReadCloser) (io.ReadCloser, error) {
		return wrapped{io.LimitReader(r, 10), r}, nil
	}
	for name, spoil := range map[string]func(digest.Digest, io.ReadCloser) (io.ReadCloser, error){
		"flipped bit": flip, "more": more, "endless": endless, "short": short,
	} {
		for blobName, lie := range map[string]digest.Digest{"manifest": b.manifest, "layer": b.layers[0]} {
			t.Run(name+" "+blobName, func(t *testing.T) {
				root := scratch(t)
				to := open(t, root)
				p := &peer{store: from, spoil: func(d digest.Digest, r io.ReadCloser) (io.ReadCloser, error) {
					if d != lie {
						return r, nil
					}
					return spoil(d, r)
				}}
				err := to.Fetch(t.Context(), b.manifest, []string{"app"}, p)
				if !errors.Is(err, ErrSource) || !errors.Is(err, blob.ErrDigest) && !errors.Is(err, blob.ErrSize) && name != "endless" {
					t.Errorf("Fetch = %v, want ErrSource", err)
				}
				if images, _ := to.List(t.Context()); len(images) != 0 {
					t.Errorf("stored %v", images)
				}
				check(t, to)
				if err := to.Fetch(t.Context(), b.manifest, []string{"app"}, &peer{store: from}); err != nil {
					t.Errorf("from an honest peer: %v", err)
				}
			})
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestFetch_GoesOnAfterAPeerFailed(t *testing.T) {
	b, from, to := pair(t)
	half := int64(len(b.blobs[b.layers[0]]) / 2)
	cut := &peer{store: from, spoil: func(d digest.Digest, r io.ReadCloser) (io.ReadCloser, error) {
		if d != b.layers[0] {
			return r, nil
		}
		return wrapped{io.MultiReader(io.LimitReader(r, half), failing{}), r}, nil
	}}
	if err := to.Fetch(t.Context(), b.manifest, nil, cut); !errors.Is(err, ErrSource) || !errors.Is(err, errCut) {
		t.Fatalf("Fetch = %v, want ErrSource and %v", err, errCut)
	}
	good := rangedPeer{&peer{store: from}}
	if err := to.Fetch(t.Context(), b.manifest, nil, good); err != nil {
		t.Fatal(err)
	}
	if good.ranged.Load() != 1 {
		t.Errorf("the peer was asked %d times for a rest, want once", good.ranged.Load())
	}
	check(t, to)
}

// TestFetch_DoesNotBlameThePeerForAnothersBytes resumes on bytes that the first
// peer made up.
func TestFetch_DoesNotBlameThePeerForAnothersBytes(t *testing.T) {
	b, from, to := pair(t)
	liar := &peer{store: from, spoil: func(d digest.Digest, r io.ReadCloser) (io.ReadCloser, error) {
		if d != b.layers[0] {
			return r, nil
		}
		return wrapped{io.MultiReader(strings.NewReader("made up"), failing{}), r}, nil
	}}
	if err := to.Fetch(t.Context(), b.manifest, nil, liar); !errors.Is(err, ErrSource) {
		t.Fatalf("Fetch = %v, want ErrSource", err)
	}
	if err := to.Fetch(t.Context(), b.manifest, nil, rangedPeer{&peer{store: from}}); err != nil {
		t.Fatal(err)
	}
	check(t, to)
}

// gated makes every caller wait at the manifest until it is told.
func gated(from *Store, asked, goOn chan struct{}) *peer {
	var once sync.Once
	return &peer{store: from, spoil: func(_ digest.Digest, r io.ReadCloser) (io.ReadCloser, error) {
		once.Do(func() { close(asked) })
		<-goOn
		return r, nil
	}}
}

func TestFetch_ConcurrentCallersShareOne(t *testing.T) {
	b, from, to := pair(t)
	asked, goOn := make(chan struct{}), make(chan struct{})
	p := gated(from, asked, goOn)
	errs := make(chan error, 8)
	for n := range cap(errs) {
		go func() { errs <- to.Fetch(t.Context(), b.manifest, []string{fmt.Sprintf("app:%d", n)}, p) }()
	}
	<-asked
	close(goOn)
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := p.asked.Load(); n != 4 {
		t.Errorf("asked the peer %d times, want 4", n)
	}
	images, err := to.List(t.Context())
	if err != nil || len(images) != 1 || len(images[0].References) != 8 {
		t.Errorf("List = %+v, %v, want one image with 8 references", images, err)
	}
}

func TestFetch_OneCallersEndDoesNotEndTheOthers(t *testing.T) {
	b, from, to := pair(t)
	asked, goOn := make(chan struct{}), make(chan struct{})
	p := gated(from, asked, goOn)
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- to.Fetch(ctx, b.manifest, nil, p) }()
	<-asked
	go func() { second <- to.Fetch(t.Context(), b.manifest, nil, p) }()
	waitFor(t, &to.fetches, b.manifest, 2)
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("first = %v, want Canceled", err)
	}
	close(goOn)
	if err := <-second; err != nil {
		t.Errorf("second = %v", err)
	}
	check(t, to)
}

// waitFor returns when n callers wait for a flight.
func waitFor(t *testing.T, f *flights, key digest.Digest, n int) {
	t.Helper()
	for t.Context().Err() == nil {
		f.mu.Lock()
		fl := f.flying[key]
		enough := fl != nil && fl.waiters >= n
		f.mu.Unlock()
		if enough {
			return
		}
		runtime.Gosched()
	}
}

func TestFetch_StopsWhenItsOnlyCallerDoes(t *testing.T) {
	b, from, to := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	p := &peer{store: from, spoil: func(_ digest.Digest, r io.ReadCloser) (io.ReadCloser, error) {
		cancel()
		return r, nil
	}}
	if err := to.Fetch(ctx, b.manifest, nil, p); !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch = %v, want Canceled", err)
	}
	check(t, to)
}

func TestFetch_RefusesBadInput(t *testing.T) {
	b, from, to := pair(t)
	if err := to.Fetch(t.Context(), b.manifest, []string{"App"}, b); !errors.Is(err, reference.ErrInvalid) {
		t.Errorf("Fetch = %v, want ErrInvalid", err)
	}
	if err := to.Fetch(t.Context(), "sha256:../x", nil, b); !errors.Is(err, blob.ErrUnsupported) {
		t.Errorf("Fetch = %v, want ErrUnsupported", err)
	}
	if err := to.Fetch(t.Context(), digest.FromString("none"), nil, &peer{store: from}); !errors.Is(err, ErrSource) || !errors.Is(err, ErrNotFound) {
		t.Errorf("Fetch = %v, want ErrSource and ErrNotFound", err)
	}
	if err := to.Fetch(t.Context(), b.layers[0], nil, b); !errors.Is(err, manifest.ErrInvalid) {
		t.Errorf("Fetch of a layer = %v, want ErrInvalid", err)
	}
	check(t, to)
}
