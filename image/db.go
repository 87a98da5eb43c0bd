package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

// format is the version of everything below a store's root.
const format = "1"

// record is an image in the database.
type record struct {
	Config   digest.Digest     `json:"config"`
	Blobs    []digest.Digest   `json:"blobs"`  // manifest, config, layers, indexes, and all of other platforms
	Chain    []digest.Digest   `json:"chain"`  // chainIDs, bottom first
	Layers   []digest.Digest   `json:"layers"` // blobs, bottom first
	DiffIDs  []digest.Digest   `json:"diffIDs"`
	Indexes  []digest.Digest   `json:"indexes,omitempty"`
	Size     int64             `json:"size"`
	Created  time.Time         `json:"created"`
	Loaded   time.Time         `json:"loaded"`
	Platform manifest.Platform `json:"platform"`
}

// layerRecord is an unpacked layer in the database.
type layerRecord struct {
	Bytes   int64 `json:"bytes"`
	Entries int   `json:"entries"`
	// Opaque is set when the layer hides everything below its root, which
	// overlayfs cannot express: it is then mounted without the layers below.
	Opaque bool `json:"opaque,omitempty"`
	// Boot is the boot of the machine in which the layer was unpacked, until
	// its files were synced; then it is "". After another boot an unsynced
	// layer may have holes, and is unpacked again.
	Boot string `json:"boot,omitempty"`
}

// tables gives typed access to the buckets within one transaction.
type tables struct{ tx *bbolt.Tx }

func bucketNames() []string {
	return []string{"meta", "images", "refs", "indexes", "members", "layers"}
}

func (t tables) bucket(name string) *bbolt.Bucket { return t.tx.Bucket([]byte(name)) }

// view runs f in a read transaction.
func (s *Store) view(f func(tables) error) error {
	return s.db.View(func(tx *bbolt.Tx) error { return f(tables{tx}) })
}

// update runs f in a write transaction, which is durable when update returns nil.
func (s *Store) update(f func(tables) error) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if err := f(tables{tx}); err != nil {
			return err
		}
		return s.step("commit")
	})
}

// checkFormat creates the buckets of a new database and refuses those of
// another version.
func (s *Store) checkFormat() error {
	return s.update(func(t tables) error {
		for _, name := range bucketNames() {
			if _, err := t.tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		meta := t.bucket("meta")
		have := meta.Get([]byte("format"))
		if have == nil {
			return meta.Put([]byte("format"), []byte(format))
		}
		if string(have) != format {
			return fmt.Errorf("%w: %s has format %q, this version of skep writes %q; use the version that wrote it, or move %s away",
				ErrFormat, s.root, have, format, s.root)
		}
		return nil
	})
}

// image returns the record of a manifest digest, or nil.
func (t tables) image(d digest.Digest) (*record, error) {
	data := t.bucket("images").Get([]byte(d))
	if data == nil {
		return nil, nil
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, fmt.Errorf("record of image %s: %w", d, err)
	}
	return &rec, nil
}

// manifestOf returns the image that d is the manifest or an index of.
func (t tables) manifestOf(d digest.Digest) (digest.Digest, *record, error) {
	if chosen := t.bucket("indexes").Get([]byte(d)); chosen != nil {
		d = digest.Digest(chosen)
	}
	rec, err := t.image(d)
	if err == nil && rec == nil {
		err = fmt.Errorf("%w: %s", ErrNotFound, d)
	}
	return d, rec, err
}

// putImage adds an image, or to an image that is there already its new indexes.
func (t tables) putImage(d digest.Digest, rec record) error {
	have, err := t.image(d)
	if err != nil {
		return err
	}
	if have != nil {
		rec.Loaded = have.Loaded
		rec.Indexes = union(have.Indexes, rec.Indexes)
		rec.Blobs = union(have.Blobs, rec.Blobs)
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	for _, b := range rec.Blobs {
		if err := t.bucket("members").Put(memberKey(b, d), nil); err != nil {
			return err
		}
	}
	for _, index := range rec.Indexes {
		if err := t.bucket("indexes").Put([]byte(index), []byte(d)); err != nil {
			return err
		}
	}
	return t.bucket("images").Put([]byte(d), data)
}

func union(a, b []digest.Digest) []digest.Digest {
	for _, d := range b {
		if !slices.Contains(a, d) {
			a = append(a, d)
		}
	}
	return a
}

// deleteImage removes an image, its references and its index entries.
func (t tables) deleteImage(d digest.Digest, rec record) error {
	refs, err := t.refsOf(d)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if err := t.bucket("refs").Delete([]byte(ref)); err != nil {
			return err
		}
	}
	for _, index := range rec.Indexes {
		if string(t.bucket("indexes").Get([]byte(index))) != string(d) {
			continue // another platform's image was chosen since
		}
		if err := t.bucket("indexes").Delete([]byte(index)); err != nil {
			return err
		}
	}
	for _, b := range rec.Blobs {
		if err := t.bucket("members").Delete(memberKey(b, d)); err != nil {
			return err
		}
	}
	return t.bucket("images").Delete([]byte(d))
}

func memberKey(b, m digest.Digest) []byte { return []byte(string(b) + "/" + string(m)) }

// isMember tells whether a blob belongs to an image (I6).
func (t tables) isMember(b digest.Digest) bool {
	prefix := []byte(string(b) + "/")
	key, _ := t.bucket("members").Cursor().Seek(prefix)
	return bytes.HasPrefix(key, prefix)
}

// members returns every blob that belongs to an image.
func (t tables) members() (map[digest.Digest]bool, error) {
	marked := map[digest.Digest]bool{}
	err := t.bucket("members").ForEach(func(key, _ []byte) error {
		b, _, _ := strings.Cut(string(key), "/")
		marked[digest.Digest(b)] = true
		return nil
	})
	return marked, err
}

// putRefs points references at an image, away from others if need be.
func (t tables) putRefs(d digest.Digest, refs []reference.Reference) error {
	for _, ref := range refs {
		if err := t.bucket("refs").Put([]byte(ref.String()), []byte(d)); err != nil {
			return err
		}
	}
	return nil
}

// refsOf returns the references of an image, sorted.
func (t tables) refsOf(d digest.Digest) ([]string, error) {
	refs := []string{}
	err := t.bucket("refs").ForEach(func(key, value []byte) error {
		if string(value) == string(d) {
			refs = append(refs, string(key))
		}
		return nil
	})
	return refs, err
}

// images calls f for every image, sorted by digest.
func (t tables) images(f func(digest.Digest, record) error) error {
	return t.bucket("images").ForEach(func(key, value []byte) error {
		var rec record
		if err := json.Unmarshal(value, &rec); err != nil {
			return fmt.Errorf("record of image %s: %w", key, err)
		}
		return f(digest.Digest(key), rec)
	})
}

// layer returns the record of an unpacked layer, or nil.
func (t tables) layer(chainID digest.Digest) (*layerRecord, error) {
	data := t.bucket("layers").Get([]byte(chainID))
	if data == nil {
		return nil, nil
	}
	var rec layerRecord
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, fmt.Errorf("record of layer %s: %w", chainID, err)
	}
	return &rec, nil
}

func (t tables) putLayer(chainID digest.Digest, rec layerRecord) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return t.bucket("layers").Put([]byte(chainID), data)
}

// layerIDs returns the chainIDs of all unpacked layers.
func (t tables) layerIDs() ([]digest.Digest, error) {
	var ids []digest.Digest
	err := t.bucket("layers").ForEach(func(key, _ []byte) error {
		ids = append(ids, digest.Digest(key))
		return nil
	})
	return ids, err
}

// describe returns what callers see of a record.
func (t tables) describe(d digest.Digest, rec record) (Image, error) {
	refs, err := t.refsOf(d)
	return Image{
		Digest: d, ConfigDigest: rec.Config, Indexes: rec.Indexes, References: refs,
		Size: rec.Size, Created: rec.Created, Loaded: rec.Loaded, Platform: rec.Platform,
	}, err
}

// errStop ends an iteration early.
var errStop = errors.New("stop")

// refKey returns the key of a reference that leads to d; named is false when
// name is a digest or the beginning of one.
func (t tables) refKey(name string, d digest.Digest) (key string, named bool) {
	ref, err := reference.Parse(name)
	if err != nil {
		return "", false
	}
	key = ref.String()
	return key, string(t.bucket("refs").Get([]byte(key))) == string(d)
}
