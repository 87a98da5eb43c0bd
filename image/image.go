package image

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/skep-io/skep/image/blob"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/unpack"
)

var (
	// ErrNotFound is returned when the store has no such image, or no such blob
	// that belongs to an image.
	ErrNotFound = errors.New("no such image")
	// ErrAmbiguous is returned when a shortened digest fits several images.
	ErrAmbiguous = errors.New("ambiguous image")
	// ErrInUse is returned when an image that containers use is to be removed.
	ErrInUse = errors.New("image is in use")
	// ErrLocked is returned when another process uses the store.
	ErrLocked = errors.New("image store is in use by another process")
	// ErrFormat is returned when the store was written by another version.
	ErrFormat = errors.New("image store has another format")
	// ErrSource is returned when a Source fails or sends something else than it
	// was asked for. Another source may do better.
	ErrSource = errors.New("image source")
)

const (
	// partialAge is how long an interrupted download may be gone on with.
	partialAge = 24 * time.Hour
	// lockWait is how long Open waits for a daemon that is just stopping.
	lockWait = 2 * time.Second

	tempLayer = "tmp-"
	// bootFile holds an identifier that the kernel makes anew at each boot.
	bootFile = "/proc/sys/kernel/random/boot_id"
)

// Image is one stored image, for one platform.
type Image struct {
	Digest       digest.Digest   // of its manifest; this identifies it in the cluster
	ConfigDigest digest.Digest   // what docker calls the image ID
	Indexes      []digest.Digest // multi-platform indexes that led to it
	References   []string        // normalised, sorted; empty for an untagged image
	Size         int64           // bytes of its config and layers as stored
	Created      time.Time       // when it was built, or zero when it does not say
	Loaded       time.Time       // when it came to this node
	Platform     manifest.Platform
}

// Store is a node's images. See the package comment.
type Store struct {
	// Constant after Open.
	root     string
	platform manifest.Platform
	limits   unpack.Limits
	log      *slog.Logger
	step     func(string) error // called before each change of the disk
	boot     string             // identifies this boot of the machine
	db       *bbolt.DB
	blobs    *blob.Store

	sessions sessions
	fetches  flights // of images, by the digest asked for
	pulls    flights // of blobs, by digest
	unpacks  flights // of layers, by chainID
	// unpacking holds one token for each layer that is being unpacked. More at a
	// time than there are processors would only take memory.
	unpacking chan struct{}

	leaseMu sync.Mutex
	leases  map[digest.Digest]int // guarded by leaseMu; by manifest digest

	changeMu sync.Mutex
	changed  chan struct{} // guarded by changeMu; closed at the next change
}

// Option changes a setting of [Open].
type Option func(*Store)

// WithPlatform chooses another platform than the host's from indexes.
func WithPlatform(p manifest.Platform) Option { return func(s *Store) { s.platform = p } }

// WithLimits bounds what one layer may unpack to.
func WithLimits(l unpack.Limits) Option { return func(s *Store) { s.limits = l } }

// WithLogger reports what happens in the background. By default nothing does.
func WithLogger(log *slog.Logger) Option { return func(s *Store) { s.log = log } }

// withStep calls step before each change of the disk; see blob.Config.Step.
func withStep(step func(string) error) Option { return func(s *Store) { s.step = step } }

// withBoot pretends that this is another boot of the machine.
func withBoot(id string) Option { return func(s *Store) { s.boot = id } }

// Open opens the store below root, which it creates with mode 0700, and clears
// away what a crash left half-done. The caller must Close it.
func Open(root string, opts ...Option) (*Store, error) {
	s := &Store{
		root: root, platform: manifest.Host(), log: slog.New(slog.DiscardHandler), step: func(string) error { return nil },
		leases: map[digest.Digest]int{}, changed: make(chan struct{}), unpacking: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	for _, opt := range opts {
		opt(s)
	}
	s.sessions.sweep = s.sweep
	if s.boot == "" {
		id, err := os.ReadFile(bootFile)
		if err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
		s.boot = strings.TrimSpace(string(id))
	}
	for _, dir := range []string{root, s.layersDir(), s.trashDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	if err := os.Chmod(root, 0o700); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	db, err := bbolt.Open(filepath.Join(root, "images.db"), 0o600, &bbolt.Options{Timeout: lockWait})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s; stop the other skep daemon or choose another --data-dir", ErrLocked, root)
	}
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s.db = db
	if err := s.repair(); err != nil {
		db.Close()
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return s, nil
}

// repair makes what is on the disk agree with the database (I4).
func (s *Store) repair() error {
	if err := s.checkFormat(); err != nil {
		return err
	}
	var err error
	if s.blobs, err = blob.Open(blob.Config{Root: s.root, Step: s.step}); err != nil {
		return err
	}
	if err := s.blobs.Sweep(time.Now().Add(-partialAge)); err != nil {
		return err
	}
	return s.repairLayers()
}

// Close syncs the layers that were unpacked and releases the store. No call may
// be under way, and none may follow but the release of leases.
func (s *Store) Close() error {
	if err := errors.Join(s.syncLayers(), s.db.Close()); err != nil {
		return fmt.Errorf("close image store: %w", err)
	}
	return nil
}

// Changed returns a channel that is closed when the list of images changes next.
// To miss nothing, call it before List:
//
//	for {
//		changed := store.Changed()
//		images, err := store.List(ctx)
//		…
//		<-changed
//	}
func (s *Store) Changed() <-chan struct{} {
	s.changeMu.Lock()
	defer s.changeMu.Unlock()
	return s.changed
}

// notify wakes those who wait for Changed. It is called after the commit.
func (s *Store) notify() {
	s.changeMu.Lock()
	defer s.changeMu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Store) layersDir() string { return filepath.Join(s.root, "layers") }
func (s *Store) trashDir() string  { return filepath.Join(s.root, "trash") }

// layerDir is where the layer of a chainID is, with its content in fs.
func (s *Store) layerDir(chainID digest.Digest) string {
	return filepath.Join(s.layersDir(), chainID.Encoded())
}

func (s *Store) layerFS(chainID digest.Digest) string {
	return filepath.Join(s.layerDir(chainID), "fs")
}
