package procfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npd-plugins/internal/host/hosttest"
)

func TestOperation(t *testing.T) {
	for stack, want := range map[string]string{
		"rwsem_down_read_slowpath down_read_killable copy_net_ns create_new_namespaces":                       "copy_net_ns",
		"rwsem_down_read_slowpath.isra.0 __down_read_common copy_net_ns":                                      "copy_net_ns",
		"__mutex_lock.constprop.0 rtnl_lock register_netdev loopback_net_init ops_init setup_net copy_net_ns": "copy_net_ns",
		"__mutex_lock.isra.0.cold __mutex_lock_slowpath mutex_lock rtnl_lock_killable ip_mroute_setsockopt":   "ip_mroute_setsockopt",
		"msleep netdev_wait_allrefs_any netdev_run_todo default_device_exit_batch ops_exit_list cleanup_net":  "cleanup_net",
		"io_schedule folio_wait_bit_common __folio_lock __filemap_get_folio ext4_write_begin":                 "__filemap_get_folio",
		"wait_on_page_bit_common.llvm.1234 __lock_page write_cache_pages":                                     "write_cache_pages",
		"schedule_timeout wait_for_completion __flush_work.isra.0 flush_work xfs_log_force":                   "xfs_log_force",
		"rpc_wait_bit_killable __rpc_execute rpc_run_task rpc_call_sync nfs4_proc_getattr":                    "nfs4_proc_getattr",
		"request_wait_answer __fuse_simple_request fuse_statfs":                                               "fuse_statfs",
		"jbd2_log_wait_commit ext4_sync_file":                                                                 "jbd2_log_wait_commit",
		"rwsem_down_write_slowpath down_write_killable do_syscall_64 entry_SYSCALL_64_after_hwframe":          "",
		"rwsem_down_write_slowpath __x64_sys_munmap do_syscall_64":                                            "__x64_sys_munmap",
		"__schedule schedule": "",
		"":                    "",
	} {
		if got := Operation(strings.Fields(stack)); got != want {
			t.Errorf("%s: %q, want %q", stack, got, want)
		}
	}
}

// Stacks as kernels showed them: of a write to a frozen file system, a umount of a dead FUSE mount, a task that maps a
// file of one, another that reads its command line, and of network namespaces that are made.
func TestOperationCaptured(t *testing.T) {
	files, err := filepath.Glob("testdata/stacks/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first, stack, _ := strings.Cut(string(content), "\n")
		want, _ := strings.CutPrefix(first, "# ")
		h := hosttest.Tree{"proc/10/stack": stack}.Open(t)
		if got := Operation(Of(h, 10).Stack()); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

func FuzzOperation(f *testing.F) {
	f.Add("__mutex_lock.constprop.0 copy_net_ns")
	f.Add("__ ... .isra.0 do_syscall_64")
	f.Fuzz(func(t *testing.T, text string) {
		stack := strings.Fields(text)
		operation := Operation(stack)
		if operation != "" && (isPrimitive(plain(operation)) || !strings.Contains(text, operation)) {
			t.Errorf("%q of %q", operation, text)
		}
	})
}
