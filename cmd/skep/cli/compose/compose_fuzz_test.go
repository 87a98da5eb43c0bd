package compose_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/cmd/skep/cli/compose"
	"github.com/skep-io/skep/internal/fault"
)

// FuzzNewStack: whatever a file holds, there is a stack or an error of the caller's, and the same file makes the same specs (I3).
func FuzzNewStack(f *testing.F) {
	add := func(keys string) {
		f.Add(strings.NewReplacer("{file: site.conf}", "{content: a}", "{file: db.txt}", "{external: true}").Replace(fileWith(keys)))
	}
	for _, test := range specCases() {
		add(test.keys)
	}
	for _, keys := range []string{
		"ulimits: {nofile: }", "deploy: ", "deploy: {resources: {limits: , reservations: }}", "logging: ", "healthcheck: ", "networks: {default: }",
		"depends_on: {web: }", "secrets: [ ]", "volumes: [ , {}]", "ports: [{}]", "environment: ", "x-grants: {a: b}", "deploy: {placement: {preferences: [{}]}}",
		"healthcheck: {test: [], retries: 99999999999}", "deploy: {resources: {reservations: {generic_resources: [{}]}}}", "cap_add: [\"\"]",
		"storage_opt: {size: }", "sysctls: [a]", "labels: [a]", "tmpfs: [\"\"]",
	} {
		add(keys)
	}
	f.Add("services: {web: }")
	f.Add("services: {web: {image: x}}\nconfigs: {a: }\nsecrets: {b: }\nvolumes: {c: }\nnetworks: {default: }")
	f.Fuzz(func(t *testing.T, text string) {
		for _, names := range []string{"include", "extends", "file", "seccomp"} {
			if strings.Contains(text, names) {
				t.Skip("it names files")
			}
		}
		load := func() (*compose.Stack, error) {
			project, _, err := compose.Load(t.Context(), compose.Source{Files: []string{"-"}, Stdin: strings.NewReader(text), Name: "demo"})
			if err != nil {
				return nil, err
			}
			stack, _, err := compose.NewStack(t.Context(), project)
			return stack, err
		}
		stack, err := load()
		if err != nil {
			if kind := fault.KindOf(err); kind != fault.Invalid && kind != fault.NotFound {
				t.Fatalf("an error of the kind %v: %v", kind, err)
			}
			return
		}
		again, err := load()
		if err != nil {
			t.Fatal(err)
		}
		for i, service := range stack.Services {
			one, err := service.Spec(t.Context(), named)
			if err != nil {
				t.Fatal(err)
			}
			other, err := again.Services[i].Spec(t.Context(), named)
			if err != nil || !proto.Equal(one, other) {
				t.Fatalf("service %s: got %v and then %v (%v)", service.Name, one, other, err)
			}
		}
	})
}
