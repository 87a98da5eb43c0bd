package flagvalue

import (
	"fmt"

	"github.com/docker/go-units"

	"github.com/skep-io/skep/api"
)

// Ulimits collects resource limits, each written NAME=SOFT[:HARD], where -1 is no limit.
type Ulimits []*api.Ulimit

// Set adds one limit. One that is named again replaces the former.
func (u *Ulimits) Set(text string) error {
	limit, err := units.ParseUlimit(text)
	if err != nil {
		return err
	}
	for _, present := range *u {
		if present.GetName() == limit.Name {
			present.Soft, present.Hard = limit.Soft, limit.Hard
			return nil
		}
	}
	*u = append(*u, &api.Ulimit{Name: limit.Name, Soft: limit.Soft, Hard: limit.Hard})
	return nil
}

// String is Docker's way to show no limit.
func (u *Ulimits) String() string { return "[]" }

// Type is Docker's word.
func (u *Ulimits) Type() string { return "ulimit" }

// FormatUlimit writes a limit as it is typed.
func FormatUlimit(name string, soft, hard int64) string {
	return fmt.Sprintf("%s=%d:%d", name, soft, hard)
}

// Tmpfs collects file systems in memory, each written PATH[:OPTION,...] as `docker run --tmpfs` has it.
type Tmpfs struct {
	// Mounts is where they are put, beside others; never nil.
	Mounts *Mounts
}

// Set adds one.
func (t Tmpfs) Set(text string) error {
	mount, err := parseTmpfs(text)
	if err != nil {
		return err
	}
	*t.Mounts = append(*t.Mounts, mount)
	return nil
}

// String is empty: the default is none.
func (t Tmpfs) String() string { return "" }

// Type is Docker's word.
func (t Tmpfs) Type() string { return "list" }
