package logdriver_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/logdriver"
)

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		spec *api.LogDriver
		want logdriver.Driver
	}{
		"unset":         {nil, logdriver.Driver{Name: "file", MaxSize: 10 << 20, MaxFiles: 3}},
		"Docker's word": {&api.LogDriver{Name: "json-file"}, logdriver.Driver{Name: "file", MaxSize: 10 << 20, MaxFiles: 3}},
		"files": {
			&api.LogDriver{Name: "file", Options: map[string]string{"max-size": "20m", "max-file": "1"}},
			logdriver.Driver{Name: "file", MaxSize: 20 << 20, MaxFiles: 1},
		},
		"none": {&api.LogDriver{Name: "none"}, logdriver.Driver{Name: "none", MaxSize: 10 << 20, MaxFiles: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := logdriver.Parse(tc.spec)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}

func TestParse_SaysWhatIsAllowed(t *testing.T) {
	for want, spec := range map[string]*api.LogDriver{
		`unknown log driver "splunk": the drivers are file and none`:                     {Name: "splunk"},
		`unknown option "compress" of the log driver file: it has max-file and max-size`: {Options: map[string]string{"compress": "true"}},
		`unknown option "max-size": the log driver none has none`:                        {Name: "none", Options: map[string]string{"max-size": "1m"}},
		`max-size: invalid size "1k": write 256k to 1g`:                                  {Options: map[string]string{"max-size": "1k"}},
		`max-size: invalid size "x": write 256k to 1g`:                                   {Options: map[string]string{"max-size": "x"}},
		"max-file: invalid number of files \"0\": write 1 to 100":                        {Options: map[string]string{"max-file": "0"}},
		"100 files of 104857600 bytes: the files of a task may have 1g together":         {Options: map[string]string{"max-file": "100", "max-size": "100m"}},
		"max-file: invalid number of files \"a\": write 1 to 100\nmax-size: invalid size \"b\": write 256k to 1g": {
			Options: map[string]string{"max-file": "a", "max-size": "b"},
		},
	} {
		if _, err := logdriver.Parse(spec); err == nil || err.Error() != want {
			t.Errorf("%v: got %v, want %s", spec, err, want)
		}
	}
}
