package control_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// Whichever manager is asked reads by itself: it asks the leader only how far it must be. The exceptions say why.
func TestReads_NeedNoLeader(t *testing.T) {
	exceptions := map[string]string{
		"ListNodes":    "only the leader knows which managers it reaches",
		"GetNode":      "only the leader knows which managers it reaches",
		"GetJoinToken": "it may rotate the token",
		"GetUnlockKey": "it may rotate the key",
		"GetBackupKey": "it may make the key",
	}
	methods := api.File_skep_v1_control_proto.Services().ByName("Control").Methods()
	for i := range methods.Len() {
		method := methods.Get(i)
		name := string(method.Name())
		access := proto.GetExtension(method.Options(), api.E_Access).(*api.Access)
		reads := strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List") || strings.HasPrefix(name, "Watch") || strings.HasPrefix(name, "Read")
		_, excepted := exceptions[name]
		if reads && access.GetLeader() != excepted {
			t.Errorf("%s: needs the leader: %v, is an exception: %v", name, access.GetLeader(), excepted)
		}
	}
}
