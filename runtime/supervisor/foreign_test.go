package supervisor_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// own leaves out of a program's environment what the runtime adds to it: runc looks HOME up in the image.
func own(env []string) []string {
	if foreignRuntime == "" {
		return env
	}
	return slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, "HOME=") })
}

// foreignRuntime is the OCI runtime of the supervisors that prepare makes, or "" for our own launcher.
var foreignRuntime string

// TestForeign_ContainersOfRuncBehaveAsOurs runs tests of what clients and programs see with runc as the runtime.
func TestForeign_ContainersOfRuncBehaveAsOurs(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skipf("needs runc: %v", err)
	}
	foreignRuntime = runc
	t.Cleanup(func() {
		foreignRuntime = ""
		// The supervisors ran in this process: orphans of later tests are init's again, which waits for them.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
	for name, test := range map[string]func(*testing.T){
		"isolation":           TestInside_Isolation,
		"user":                TestInside_User,
		"stdout":              TestInside_EveryUserMayOpenStandardOutput,
		"files":               TestInside_Files,
		"exits":               TestLife_ExitCodesAndSignals,
		"wrong states":        TestLife_WrongStates,
		"no start":            TestLife_DeleteWithoutStart,
		"memory":              TestLimits_Memory,
		"pids":                TestLimits_Pids,
		"logs":                TestLogs_BothStreamsAndRotation,
		"writable layer":      TestWritableLayer,
		"part of a directory": TestBind_ShowsAPartAndFollowsNoLink,
		"bind mounts":         TestBind_IsReadOnlyAndSharesMountsAsAskedFor,
		"images":              TestImage_IsShownReadOnlyWithTheContainersIDs,
		"secrets":             TestSecrets_AreNowhereOnDisk,
		"terminal":            TestTerminal_IsTheContainersOwn,
		"copying from":        TestCopy_SeesWhatTheContainerSees,
		"copying to":          TestCopy_WritesAsTheContainersRoot,
		"copying if paused":   TestCopy_PausedAndEnded,
		"shared":              TestShared_NamespacesAreTheHosts,
	} {
		t.Run(name, test)
	}
	t.Run("what is in force", func(t *testing.T) {
		n := newNode(t)
		state, _ := n.complete(n.request("c", "exit", "0"))
		if want := []string{"userns", "seccomp", "no-new-privileges"}; !slices.Equal(state.Enforced, want) {
			t.Errorf("in force: %q, want %q: runc knows no Landlock", state.Enforced, want)
		}
	})
	left, err := filepath.Glob(fmt.Sprintf("/run/skep-bundles/skep-test-%d-*", os.Getpid()))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}
