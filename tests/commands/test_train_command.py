def test_x(trained):
    import subprocess
    print(trained.out, trained.err)
    print(subprocess.run(["find", str(trained.folder)], capture_output=True, text=True).stdout)

def test_y(folder_data, lemlight_run):
    d = lemlight_run("train", *folder_data)
    print(d.out, d.err)
