package supervisor

import (
	"errors"
	"testing"

	"github.com/skep-io/skep/runtime/protocol"
)

func TestFind(t *testing.T) {
	const (
		root   = "20 1 0:30 / / rw - overlay overlay rw\n"
		other  = "21 20 0:31 / /run/app ro - tmpfs tmpfs ro\n"
		copied = "22 20 0:32 / /copy ro - tmpfs skep-files-1 ro\n"
		again  = "23 20 0:32 / /second\\040copy ro - tmpfs skep-files-1 ro\n"
		put    = "24 20 0:32 / /run/app ro - tmpfs skep-files-1 ro\n"
		over   = "25 24 0:33 / /run/app ro - tmpfs skep-files-1 ro\n"
		disk   = "26 20 8:1 / /run/app ro - ext4 skep-files-1 ro\n"
	)
	for name, test := range map[string]struct {
		table string
		want  uint64 // the id, 0 is an error
	}{
		"where it was put":                 {root + put, 24},
		"also at another place":            {root + copied + put, 24},
		"also at two others":               {root + copied + put + again, 24},
		"the new one on top":               {root + put + over + copied, 25},
		"where a link leads":               {root + copied, 22},
		"a link, and another place":        {root + copied + again, 0},
		"not there":                        {root + other, 0},
		"not in memory":                    {root + disk, 0},
		"another file system at its place": {root + other + put, 24},
		"lines that are none":              {"24 20 0:32\n - tmpfs\n", 0},
	} {
		m, err := find(parseMounts(test.table), "skep-files-1", "run/app")
		if m.id != test.want || (test.want == 0) != errors.Is(err, protocol.ErrState) {
			t.Errorf("%s: %d, %v; want %d", name, m.id, err, test.want)
		}
	}
}
