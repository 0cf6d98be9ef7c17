package guest

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// moduleTree is what a kernel's package says about modules. It holds no modules.dep: that is made by depmod on the
// machine where the package is installed.
type moduleTree struct {
	files   map[string]string // by name, of each module
	builtin map[string]bool   // names of those inside the kernel's image
}

type module struct {
	name   string
	object []byte // the ELF file
}

func openModuleTree(unpacked string) (*moduleTree, error) {
	tree := &moduleTree{map[string]string{}, map[string]bool{}}
	return tree, filepath.WalkDir(unpacked, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.Name() == "modules.builtin":
			list, err := os.ReadFile(path)
			for line := range strings.FieldsSeq(string(list)) {
				tree.builtin[moduleName(line)] = true
			}
			return err
		case strings.Contains(entry.Name(), ".ko"):
			tree.files[moduleName(path)] = path
		}
		return nil
	})
}

// moduleName returns the name the kernel gives to the module in a file, which has underscores where the file may have
// dashes.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// resolve returns the named modules and those they need, each after those it needs itself. Modules inside the kernel's
// image are left out.
func (tree *moduleTree) resolve(names []string) ([]module, error) {
	var ordered []module
	done := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		if done[name] || tree.builtin[name] {
			return nil
		}
		done[name] = true
		path, ok := tree.files[name]
		if !ok {
			return fmt.Errorf("the kernel's package has no module %s", name)
		}
		object, err := readModule(path)
		if err != nil {
			return err
		}
		needs, err := dependencies(object)
		if err != nil {
			return fmt.Errorf("read what module %s needs: %w", name, err)
		}
		for _, need := range needs {
			if err := add(moduleName(need)); err != nil {
				return err
			}
		}
		ordered = append(ordered, module{name, object})
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return ordered, nil
}

// readModule returns a module's ELF file, decompressed.
func readModule(path string) ([]byte, error) {
	if filepath.Ext(path) != ".xz" {
		return os.ReadFile(path)
	}
	object, err := exec.Command("xz", "-dc", path).Output()
	if err != nil {
		return nil, fmt.Errorf("decompress %s (apt-get install xz-utils): %w", filepath.Base(path), err)
	}
	return object, nil
}

// dependencies reads what the build of the kernel left in a module: "name=value" pairs with a zero after each, of
// which "depends" is a list with commas.
func dependencies(object []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for pair := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(pair, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
