package daemon

import (
	"fmt"
	"strings"
	"testing"

	"github.com/skep-io/skep/internal/generic"
)

func TestParseGeneric(t *testing.T) {
	for _, tt := range []struct{ flags, want string }{
		{"gpu=GPU-1 gpu=GPU-2 ssd=3", `[kind:"gpu" ids:"GPU-1" ids:"GPU-2" kind:"ssd" count:3]`},
		{"gpu=a,gpu=b,fpga=1", `[kind:"gpu" ids:"a" ids:"b" kind:"fpga" count:1]`},
		{"gpu", "want KIND=ID"},
		{"gpu=", "want KIND=ID"},
		{"g|u=a", "want KIND=ID"},
		{"gpu=a;b", "want KIND=ID"},
		{"gpu=0", "from 1 on"},
		{"gpu=-1", "from 1 on"},
		{"gpu=a gpu=2", "not beside ids"},
		{"gpu=2 gpu=a", "is there already"},
		{"gpu=a gpu=a", "is there already"},
		{"gpu=a GPU=b", "it is written gpu before"},
	} {
		got, err := parseGeneric(strings.Fields(tt.flags))
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %q", tt.flags, err, tt.want)
			}
			continue
		}
		if text := strings.Join(strings.Fields(fmt.Sprint(got)), " "); text != tt.want {
			t.Errorf("%s: got %s, want %s", tt.flags, text, tt.want)
		}
	}
	ids := make([]string, generic.MaxIDs+1)
	for i := range ids {
		ids[i] = fmt.Sprintf("gpu=id%d", i)
	}
	if _, err := parseGeneric(ids); err == nil || !strings.Contains(err.Error(), "too many ids") {
		t.Errorf("too many ids: got %v", err)
	}
}
