package daemon

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/control"
)

func TestClusterSpec_IsOneThatUpdateTakes(t *testing.T) {
	for _, test := range []struct {
		period  time.Duration
		refusal string
	}{
		{period: time.Second},
		{period: 0, refusal: "minimum heartbeat period is: 100ms"},
		{period: time.Hour, refusal: "maximum heartbeat period is: 5m0s"},
	} {
		spec, err := clusterSpec(&api.InitSwarmRequest{DispatcherHeartbeat: durationpb.New(test.period)})
		if test.refusal != "" {
			if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), test.refusal) {
				t.Errorf("%s: got %v, want …%s…", test.period, err, test.refusal)
			}
			continue
		}
		if err != nil || control.CheckClusterSpec(spec) != nil || spec.GetSnapshotInterval() != 10000 {
			t.Errorf("%s: got %v, %v", test.period, spec, err)
		}
	}
}
