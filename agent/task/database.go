package task

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

var (
	// ErrVersion is returned when the database was written by another version of Skep, in a format that this one can't read.
	ErrVersion = errors.New("the task database has another format: use the version of skep that wrote it, or move the file away while no containers run")
	// ErrDamaged is returned when the database can't be read at all.
	ErrDamaged = errors.New("the task database is damaged: move it away and start skep again; the managers assign this node's tasks anew, and replace those that run")
	// ErrLocked is returned when another process has the database open.
	ErrLocked = errors.New("the task database is in use: another skep daemon runs with the same data directory")
)

const (
	databaseFile    = "tasks.db"
	databaseVersion = "1"
	// lockTimeout is the time that Open waits for another process, as one that is just ending.
	lockTimeout = 5 * time.Second
	// batchDelay is the time that a write waits for others to share its sync with.
	batchDelay = 2 * time.Millisecond
)

// The names of buckets and keys; see the package comment.
const (
	bucketMeta   = "meta"
	bucketTask   = "task"
	bucketStatus = "status"
	keyVersion   = "version"
)

// record is what the database has of a task.
type record struct {
	task *api.Task
	// status is nil until the first one is saved.
	status *api.TaskStatus
}

// database keeps tasks and their last status over restarts. It is safe for concurrent use.
type database struct {
	bolt *bbolt.DB
}

// openDatabase opens or makes the database in a directory that exists.
func openDatabase(dir string) (*database, error) {
	path := filepath.Join(dir, databaseFile)
	b, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, ErrLocked
	}
	for _, damage := range []error{bolterrors.ErrInvalid, bolterrors.ErrChecksum, bolterrors.ErrVersionMismatch} {
		if errors.Is(err, damage) {
			return nil, fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open task database %s: %w", path, err)
	}
	b.MaxBatchDelay = batchDelay
	if err := b.Update(prepareBuckets); err != nil {
		_ = b.Close()
		return nil, fmt.Errorf("open task database %s: %w", path, err)
	}
	return &database{bolt: b}, nil
}

func prepareBuckets(tx *bbolt.Tx) error {
	for _, name := range []string{bucketMeta, bucketTask, bucketStatus} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	meta := tx.Bucket([]byte(bucketMeta))
	switch v := meta.Get([]byte(keyVersion)); {
	case v == nil:
		return meta.Put([]byte(keyVersion), []byte(databaseVersion))
	case string(v) != databaseVersion:
		return ErrVersion
	}
	return nil
}

// load returns all records. One that can't be read is dropped and logged: its container is then one without a task.
func (d *database) load(log *slog.Logger) ([]record, error) {
	var out []record
	var broken [][]byte
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		out, broken = nil, nil
		statuses := tx.Bucket([]byte(bucketStatus))
		err := tx.Bucket([]byte(bucketTask)).ForEach(func(id, data []byte) error {
			r, err := decodeRecord(data, statuses.Get(id))
			if err != nil {
				log.Error("dropped a task that can't be read", "task", string(id), "error", err)
				broken = append(broken, append([]byte(nil), id...))
				return nil
			}
			out = append(out, r)
			return nil
		})
		if err != nil {
			return err
		}
		for _, id := range broken {
			if err := deleteRecord(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load tasks: %w", err)
	}
	return out, nil
}

func decodeRecord(taskData, statusData []byte) (record, error) {
	r := record{task: &api.Task{}}
	if err := proto.Unmarshal(taskData, r.task); err != nil {
		return record{}, err
	}
	if statusData == nil {
		return r, nil
	}
	r.status = &api.TaskStatus{}
	if err := proto.Unmarshal(statusData, r.status); err != nil {
		return record{}, err
	}
	return r, nil
}

// saveTasks records assignments in one transaction.
func (d *database) saveTasks(tasks []*api.Task) error {
	if len(tasks) == 0 {
		return nil
	}
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		for _, t := range tasks {
			data, err := proto.Marshal(t)
			if err != nil {
				return err
			}
			if err := tx.Bucket([]byte(bucketTask)).Put([]byte(t.GetId()), data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("save tasks: %w", err)
	}
	return nil
}

// saveStatus records the status of a task. Concurrent calls share a transaction.
func (d *database) saveStatus(id string, s *api.TaskStatus) error {
	data, err := proto.Marshal(s)
	if err == nil {
		err = d.bolt.Batch(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketStatus)).Put([]byte(id), data)
		})
	}
	if err != nil {
		return fmt.Errorf("save status of task %s: %w", id, err)
	}
	return nil
}

// forget drops all that is known of tasks, in one transaction.
func (d *database) forget(ids []string) error {
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		for _, id := range ids {
			if err := deleteRecord(tx, []byte(id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget tasks: %w", err)
	}
	return nil
}

func deleteRecord(tx *bbolt.Tx, id []byte) error {
	return errors.Join(tx.Bucket([]byte(bucketTask)).Delete(id), tx.Bucket([]byte(bucketStatus)).Delete(id))
}

func (d *database) close() error { return d.bolt.Close() }
