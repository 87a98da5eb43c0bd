package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"sync"

	"github.com/skep-io/skep/internal/atomicfile"
)

const (
	savedFile    = "managers.json"
	savedVersion = 1
	// maxSaved is the most bytes of the file that are read, and maxManagers the most managers: far more than a Raft group has.
	maxSaved    = 64 << 10
	maxManagers = 64
)

// savedManagers is the file; see the package comment.
type savedManagers struct {
	Version  int      `json:"version"`
	Managers []string `json:"managers"`
}

// loadManagers returns the managers of the last run, or none.
func loadManagers(dir string) ([]string, error) {
	data, err := atomicfile.Read(filepath.Join(dir, savedFile), maxSaved)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read known managers: %w", err)
	}
	return parseManagers(data)
}

// parseManagers reads the contents of the file.
func parseManagers(data []byte) ([]string, error) {
	var s savedManagers
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read known managers: %w", err)
	}
	if s.Version != savedVersion {
		return nil, fmt.Errorf("read known managers: version %d, want %d", s.Version, savedVersion)
	}
	return cleanAddresses(s.Managers), nil
}

// saveManagers replaces the file.
func saveManagers(dir string, addresses []string) error {
	data, err := json.Marshal(savedManagers{Version: savedVersion, Managers: addresses})
	if err != nil {
		return fmt.Errorf("save known managers: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, savedFile), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("save known managers: %w", err)
	}
	return nil
}

// saving begins to write what changes to the files, and returns what ends that, once all is written. A session never waits for the disk: one that
// does not finish writing would have the node taken for down, with all that runs there.
func (c *Client) saving() (end func()) {
	var writing sync.WaitGroup
	ended := make(chan struct{})
	writing.Go(func() {
		for {
			select {
			case <-c.unsaved:
				c.save()
			case <-ended:
				c.save()
				return
			}
		}
	})
	return func() {
		close(ended)
		writing.Wait()
	}
}

// save writes what has changed.
func (c *Client) save() {
	c.mu.Lock()
	managers, saw := c.writeManagers, c.writeWitness
	c.writeManagers, c.writeWitness = false, false
	addresses, now := slices.Clone(c.remotes.addresses), c.witness
	c.mu.Unlock()
	if managers {
		if err := saveManagers(c.cfg.Dir, addresses); err != nil {
			c.log.Error("the list of managers is not saved: after a restart this node may not find them", "error", err)
		}
	}
	if saw {
		if err := saveWitness(c.cfg.Dir, now); err != nil {
			c.log.Error("what this node saw of the audit log is not kept: after a restart it may not notice a manager that was rolled back", "error", err)
		}
	}
}

// cleanAddresses returns the valid addresses, each once, in order, and not more than maxManagers.
func cleanAddresses(in []string) []string {
	var out []string
	for _, a := range in {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || port == "" || slices.Contains(out, a) || len(out) == maxManagers {
			continue
		}
		out = append(out, a)
	}
	return out
}
