"""Give Wine's ucrtbase.dll the C99 complex functions: a new section with their code, and the exports pointed at it.

usage: patch_ucrt.py DLL RESULT CODE.o

CODE.o defines ``w_NAME`` for each function NAME. What it calls itself (sin, exp, ...) is taken from the DLL's exports.
"""

import os
import struct
import subprocess
import sys

import pefile

SECTION, READ_EXECUTE_CODE = b".cplx", 0x60000020
CONSTANTS = 0x8000
"""Where, within the new section, the code finds its constants."""


def up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def lines(*command: str) -> list[list[str]]:
    return [line.split() for line in subprocess.check_output(command, text=True).splitlines()]


source, result, code = sys.argv[1:4]
dll = pefile.PE(source)
data = bytearray(dll.__data__[:])
exports = {one.name.decode(): one for one in dll.DIRECTORY_ENTRY_EXPORT.symbols if one.name}
base, header = dll.OPTIONAL_HEADER.ImageBase, dll.OPTIONAL_HEADER
last = max(dll.sections, key=lambda section: section.VirtualAddress)
start = up(last.VirtualAddress + last.Misc_VirtualSize, header.SectionAlignment)

# Link the code for its place behind the last section.
called = [words[-1] for words in lines("x86_64-w64-mingw32-nm", "-u", code) if words]
linked = f"{result}.exe"
subprocess.check_call(
    ["x86_64-w64-mingw32-ld", "-nostdlib", "--image-base", hex(base), "-e", "0", f"-Ttext={base + start:#x}"]
    + [f"--section-start=.rdata={base + start + CONSTANTS:#x}", "-o", linked, code]
    + [f"--defsym={name}={base + exports[name].address:#x}" for name in called]
)
blob = bytearray()
for section in pefile.PE(linked).sections:
    if section.Name.rstrip(b"\0") in (b".text", b".rdata"):
        offset, content = section.VirtualAddress - start, section.get_data()
        blob.extend(b"\0" * max(offset + len(content) - len(blob), 0))
        blob[offset : offset + len(content)] = content
symbols = [words for words in lines("x86_64-w64-mingw32-nm", linked) if len(words) == 3]
addresses = {name[2:]: int(address, 16) - base for address, _, name in symbols if name.startswith("w_")}
os.remove(linked)

# Append it as a section.
offset = up(len(data), header.FileAlignment)
size = up(len(blob), header.FileAlignment)
data.extend(b"\0" * (offset - len(data)))
data.extend(blob + b"\0" * (size - len(blob)))
entry = dll.sections[-1].get_file_offset() + 40
if entry + 40 > header.SizeOfHeaders or any(data[entry : entry + 40]):
    sys.exit(f"{source}: there is no room for another section")
fields = SECTION, len(blob), start, size, offset, 0, 0, 0, 0, READ_EXECUTE_CODE
data[entry : entry + 40] = struct.pack("<8sIIIIIIHHI", *fields)
count = dll.FILE_HEADER.get_field_absolute_offset("NumberOfSections")
struct.pack_into("<H", data, count, dll.FILE_HEADER.NumberOfSections + 1)
struct.pack_into(
    "<I", data, header.get_field_absolute_offset("SizeOfImage"), up(start + len(blob), header.SectionAlignment)
)

# Point the exports at it.
table = dll.DIRECTORY_ENTRY_EXPORT.struct
functions = dll.get_offset_from_rva(table.AddressOfFunctions)
found = {name: address for name, address in addresses.items() if name in exports}
for name, address in found.items():
    struct.pack_into("<I", data, functions + 4 * (exports[name].ordinal - table.Base), address)
with open(result, "wb") as file:
    file.write(data)
print(f"{len(found)} functions of {len(addresses)} replaced")
