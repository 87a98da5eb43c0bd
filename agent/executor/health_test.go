package executor

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image/manifest"
)

func TestCheckOf_PutsTheServiceOverTheImage(t *testing.T) {
	const s = time.Second
	shell := []string{"/bin/sh", "-c"}
	image := &manifest.Healthcheck{Test: []string{"CMD", "/probe"}, Interval: 2 * s, Timeout: 3 * s, StartPeriod: 4 * s, StartInterval: 5 * s, Retries: 6}
	for _, tt := range []struct {
		name  string
		own   *api.HealthConfig
		image *manifest.Healthcheck
		shell []string
		want  *healthCheck
	}{
		{"nothing", nil, nil, nil, nil},
		{"a service with times only", &api.HealthConfig{Retries: 3}, nil, nil, nil},
		{"the image's", nil, image, nil, &healthCheck{[]string{"/probe"}, 2 * s, 3 * s, 4 * s, 5 * s, 6}},
		{
			"the image's with Docker's defaults", nil, &manifest.Healthcheck{Test: []string{"CMD", "/probe", "-v"}}, nil,
			&healthCheck{[]string{"/probe", "-v"}, 30 * s, 30 * s, 0, 5 * s, 3},
		},
		{
			"a command line", nil, &manifest.Healthcheck{Test: []string{"CMD-SHELL", "true"}, Interval: 1}, nil,
			&healthCheck{append(shell, "true"), time.Millisecond, 30 * s, 0, 5 * s, 3},
		},
		{
			"a command line for the image's shell", nil, &manifest.Healthcheck{Test: []string{"CMD-SHELL", "true"}},
			[]string{"/bin/ash", "-ec"},
			&healthCheck{[]string{"/bin/ash", "-ec", "true"}, 30 * s, 30 * s, 0, 5 * s, 3},
		},
		{
			"single fields of the service", &api.HealthConfig{Interval: durationpb.New(s), Retries: 1}, image, nil,
			&healthCheck{[]string{"/probe"}, s, 3 * s, 4 * s, 5 * s, 1},
		},
		{
			"the service's command with the image's times", &api.HealthConfig{Test: []string{"CMD-SHELL", "x"}}, image, nil,
			&healthCheck{append(shell, "x"), 2 * s, 3 * s, 4 * s, 5 * s, 6},
		},
		{"--no-healthcheck", &api.HealthConfig{Test: []string{"NONE"}}, image, nil, nil},
		{"an image that says NONE", nil, &manifest.Healthcheck{Test: []string{"NONE"}}, nil, nil},
		{"an image for another engine", nil, &manifest.Healthcheck{Test: []string{"HTTP", "/"}}, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := checkOf(newTask(&api.ContainerSpec{Health: tt.own}), manifest.ProgramConfig{Healthcheck: tt.image, Shell: tt.shell})
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(healthCheck{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
